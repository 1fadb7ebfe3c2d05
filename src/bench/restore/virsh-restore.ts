import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

import type { BenchOptions } from '../bench.ts';
import { guestArguments, guestImage, waitForBoot, withDirectory } from './guest.ts';
import type { RestoreMeasurement, RestoreSize } from './measurement.ts';

const startBoundMs = 20_000;
const pollMs = 50;
const domain = 'bench';

/** libvirt's: a domain that was saved to a file, from a daemon of one's own. */
export const virshRestore: RestoreMeasurement = {
  name: 'virsh restore',
  limitMs: null,
  measure: (size, options) =>
    withDirectory(async (directory) => {
      const libvirt = await PrivateLibvirt.start(directory, options.signal);
      try {
        return await measureWith(libvirt, directory, size, options);
      } finally {
        await libvirt.stop();
      }
    }),
};

async function measureWith(
  libvirt: PrivateLibvirt,
  directory: string,
  { memoryMiB, rounds }: RestoreSize,
  { signal }: BenchOptions,
): Promise<number[]> {
  const [xml, serial, saved] = ['domain.xml', 'serial', 'saved'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  await writeFile(xml, await domainXml(memoryMiB, serial, signal));
  await libvirt.virsh('create', xml);
  await waitForBoot(serial, signal);
  const values: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await libvirt.virsh('save', domain, saved);
    const startedAtMs = performance.now();
    await libvirt.virsh('restore', saved);
    values.push(performance.now() - startedAtMs);
  }
  return values;
}

async function domainXml(memoryMiB: number, serial: string, signal: AbortSignal): Promise<string> {
  const { kernel, initrd } = await guestImage(signal);
  return `<domain type='qemu'>
  <name>${domain}</name>
  <memory unit='MiB'>${memoryMiB}</memory>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${kernel}</kernel><initrd>${initrd}</initrd><cmdline>${guestArguments}</cmdline>
  </os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <serial type='file'><source path='${serial}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>`;
}

/** What libvirtd keeps outside of a directory of one's choice. */
const ownDirectories = [
  '/run/libvirt',
  '/var/lib/libvirt',
  '/var/cache/libvirt',
  '/var/log/libvirt',
  '/etc/libvirt',
];

/** A libvirtd in a mount namespace of its own: it finds none of the system's files, and leaves nothing there. */
class PrivateLibvirt {
  readonly #process: ReturnType<typeof spawn>;
  readonly #ended: Promise<unknown>;
  readonly #uri: string;

  private constructor(process: ReturnType<typeof spawn>, socket: string) {
    this.#process = process;
    this.#ended = once(process, 'exit');
    this.#uri = `qemu+unix:///system?socket=${socket}`;
  }

  static async start(directory: string, signal: AbortSignal): Promise<PrivateLibvirt> {
    const config = join(directory, 'libvirtd.conf');
    const sockets = join(directory, 'sockets');
    await mkdir(sockets);
    await writeFile(
      config,
      `unix_sock_dir = "${sockets}"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\nhost_uuid_source = "machine-id"\n`,
    );
    // A file as a domain's console and output, without virtlogd.
    const qemuConfig = `user = "root"\ngroup = "root"\ndynamic_ownership = 0\nsecurity_driver = "none"\nstdio_handler = "file"\nnamespaces = []\ncgroup_controllers = []\n`;
    await writeFile(join(directory, 'qemu.conf'), qemuConfig);
    const script = [
      'mount --make-rprivate /',
      ...ownDirectories.map((path) => `mkdir -p ${path}; mount -t tmpfs tmpfs ${path}`),
      `cp ${join(directory, 'qemu.conf')} /etc/libvirt/qemu.conf`,
      `exec libvirtd -f ${config} -p ${join(directory, 'pid')}`,
    ].join('\n');
    // What it starts ends with it: PID 1 of a namespace takes all others along.
    const isolation = ['--mount', '--pid', '--fork', '--mount-proc', '--net', '--kill-child'];
    const child = spawn('unshare', [...isolation, 'sh', '-euc', script], { stdio: 'ignore' });
    const libvirt = new PrivateLibvirt(child, join(sockets, 'libvirt-sock'));
    const startedAtMs = performance.now();
    while (
      !(await access(join(sockets, 'libvirt-sock')).then(
        () => true,
        () => false,
      ))
    ) {
      if (child.exitCode !== null || performance.now() - startedAtMs > startBoundMs) {
        await libvirt.stop();
        throw new Error('libvirtd does not start');
      }
      await delay(pollMs, undefined, { signal });
    }
    return libvirt;
  }

  async virsh(...args: string[]): Promise<void> {
    await promisify(execFile)('virsh', ['-q', '-c', this.#uri, ...args]);
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) this.#process.kill('SIGKILL');
    await this.#ended;
  }
}
