import { stat } from 'node:fs/promises';
import { join } from 'node:path';

import { identityOf, readOpenFiles } from '../../vmm/disks/open-files.ts';
import { findQemuProcesses } from '../../vmm/qemu-process.ts';
import type { BenchOptions } from '../bench.ts';
import { PrivateLibvirt } from '../private-libvirt.ts';
import { guestArguments, guestImage, waitForBoot, withDirectory } from './guest.ts';
import type { RestoreMeasurement, RestoreSize } from './measurement.ts';
import { writeUntouchedRam } from './written-ram.ts';

const domain = 'bench';

/** libvirt's: a domain that was saved to a file, from a daemon of one's own. */
export const virshRestore: RestoreMeasurement = {
  name: 'virsh restore',
  limitMs: null,
  measure: (size, options) =>
    withDirectory(async (directory) => {
      const libvirt = await PrivateLibvirt.start(options.signal);
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
  const [serial, saved] = [join(directory, 'serial'), join(directory, 'saved')];
  await libvirt.create(domain, await domainXml(memoryMiB, serial, signal));
  await waitForBoot(serial, signal);
  await writeUntouchedRam(await pidOf(serial), memoryMiB);
  const values: number[] = [];
  for (let round = 0; round < rounds; round++) {
    await libvirt.virsh('save', domain, saved);
    const startedAtMs = performance.now();
    await libvirt.virsh('restore', saved);
    values.push(performance.now() - startedAtMs);
  }
  return values;
}

/** libvirtd is in a namespace of its own, and so is the pid that it tells; its QEMU has the serial log open. */
async function pidOf(serial: string): Promise<number> {
  const log = identityOf(await stat(serial, { bigint: true }));
  for (const { pid } of await findQemuProcesses()) {
    if ((await readOpenFiles(pid)).some(({ identity }) => identity === log)) return pid;
  }
  throw new Error('the QEMU that libvirtd started was not found');
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
