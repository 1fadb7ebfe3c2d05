import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { run } from '../lab/command.ts';

const startBoundMs = 30_000;
const pollMs = 50;
/** What libvirtd keeps outside of a directory of one's choice. */
const ownDirectories = ['/run', '/var/lib', '/var/cache', '/var/log', '/etc'].map(
  (path) => `${path}/libvirt`,
);
/** Of the QEMU driver: a file as a domain's console and output needs no virtlogd so. */
const qemuSettings = [
  'user = "root"',
  'group = "root"',
  'stdio_handler = "file"',
  'cgroup_controllers = []',
  'security_driver = "none"',
  'dynamic_ownership = 0',
  'remember_owner = 0',
  'namespaces = []',
];

/** A libvirtd to compare with, in namespaces of its own: it finds none of the system's files, and leaves nothing there. */
export class PrivateLibvirt {
  readonly #process: ChildProcess;
  readonly #ended: Promise<unknown>;
  readonly #directory: string;

  private constructor(process: ChildProcess, directory: string) {
    this.#process = process;
    this.#ended = once(process, 'exit');
    this.#directory = directory;
  }

  /** @throws Error where there is none: Debian's package libvirt-daemon-system has it, libvirt-clients virsh */
  static async start(signal: AbortSignal): Promise<PrivateLibvirt> {
    const directory = mkdtempSync(join(tmpdir(), 'staghorn-libvirt-'));
    const libvirt = new PrivateLibvirt(spawnDaemon(directory), directory);
    try {
      await libvirt.#answers(signal);
      return libvirt;
    } catch (error) {
      await libvirt.stop();
      throw error;
    }
  }

  virsh(...args: readonly string[]): Promise<string> {
    return run(['virsh', '-q', '-c', `qemu+unix:///system?socket=${this.#socket}`, ...args]);
  }

  /** Starts a domain from its XML; it is gone when it ends. */
  async create(name: string, xml: string): Promise<void> {
    const path = join(this.#directory, `${name}.xml`);
    writeFileSync(path, xml);
    await this.virsh('create', path);
  }

  /** Ends it with all of its domains. */
  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) this.#process.kill('SIGKILL');
    await this.#ended;
    rmSync(this.#directory, { recursive: true, force: true });
  }

  get #socket(): string {
    return join(socketsOf(this.#directory), 'libvirt-sock');
  }

  async #answers(signal: AbortSignal): Promise<void> {
    const limitMs = performance.now() + startBoundMs;
    while (!existsSync(this.#socket)) {
      if (this.#process.exitCode !== null || performance.now() > limitMs)
        throw new Error('libvirtd did not start: is libvirt-daemon-system installed?');
      await delay(pollMs, undefined, { signal });
    }
  }
}

const socketsOf = (directory: string) => join(directory, 'sockets');

function spawnDaemon(directory: string): ChildProcess {
  const [config, qemuConfig] = [join(directory, 'libvirtd.conf'), join(directory, 'qemu.conf')];
  mkdirSync(socketsOf(directory));
  const settings = [
    `unix_sock_dir = "${socketsOf(directory)}"`,
    'auth_unix_ro = "none"',
    'auth_unix_rw = "none"',
    'host_uuid_source = "machine-id"',
  ];
  writeFileSync(config, `${settings.join('\n')}\n`);
  writeFileSync(qemuConfig, `${qemuSettings.join('\n')}\n`);
  const script = [
    'mount --make-rprivate /',
    ...ownDirectories.map((path) => `mkdir -p ${path}; mount -t tmpfs tmpfs ${path}`),
    `cp ${qemuConfig} /etc/libvirt/qemu.conf`,
    // A QEMU that nobody waits for is not gone for libvirtd, which then waits for half a minute.
    `exec tini -- libvirtd -f ${config} -p ${join(directory, 'pid')}`,
  ].join('\n');
  // What it starts ends with it: PID 1 of a namespace takes all others along.
  const isolation = ['--mount', '--pid', '--fork', '--mount-proc', '--net', '--kill-child'];
  return spawn('unshare', [...isolation, 'sh', '-euc', script], { stdio: 'ignore' });
}
