import { readFileSync, statSync } from 'node:fs';

import type { QmpClient } from '../qmp/index.ts';
import type { StoredVm } from '../store/manifest.ts';
import { silencedNics } from './announcements.ts';
import { all, formatCommandLine, parseParameters } from './command-line.ts';
import type { ControlledVm } from './controlled-vm.ts';
import { launchArguments, type LaunchSpec } from './launch.ts';
import type { QemuProcess } from './qemu-process.ts';

/** Whether a QEMU is the very one that a restore would start: of these files, with these arguments. */
export function isWhatWouldBeStarted(process: QemuProcess, stored: StoredVm, spec: LaunchSpec): boolean {
  const simple = stored.running && stored.disks.length === 0 && stored.memory.length === 0;
  // A "loader" writes files into RAM at each reset (QEMU hw/core/loader.c, rom_reset).
  const loads = all(process.options, 'device').some((value) =>
    ['loader', 'guest-loader'].includes(parseParameters(value, 'driver').get('driver') ?? ''),
  );
  return (
    simple &&
    !loads &&
    process.exe === spec.exe &&
    process.uid === spec.uid &&
    process.gid === spec.gid &&
    JSON.stringify(formatCommandLine(process.options)) === JSON.stringify(launchArguments(spec))
  );
}

/** Whether it can be put back as it stands: it maps the image, and nothing was plugged in or out since its start. */
export function canBeReset(
  vm: ControlledVm,
  { stored, spec, state }: { stored: StoredVm; spec: LaunchSpec; state: Buffer },
  plugged: number,
): boolean {
  const { nics, status } = vm.vm;
  const virtioNics = nics.filter(({ model }) => model.startsWith('virtio-net')).length;
  const taps = (of: readonly { tap: string }[]) => JSON.stringify(of.map(({ tap }) => tap).sort());
  return (
    status === 'running' &&
    // vhost's kernel thread reads frames that nobody could take back.
    nics.every(({ vhost }) => !vhost) &&
    // One that armed an announcement when it was loaded would take its QEMU along (announcements.ts).
    silencedNics(state) === virtioNics &&
    taps(nics) === taps(stored.nics) &&
    plugged === all(vm.process.options, 'device').length &&
    mapsPrivately(vm, spec)
  );
}

/** How many devices a QEMU has that it was told to have, by its command line or later. */
export async function pluggedDevices(qmp: QmpClient): Promise<number> {
  const lists = await Promise.all(
    ['/machine/peripheral', '/machine/peripheral-anon'].map((path) => qmp.execute('qom-list', { path })),
  );
  return lists.flat().filter(({ type }) => type.startsWith('child<')).length;
}

/** The inode too: a file that took the place of another one is not what the QEMU maps. */
function mapsPrivately({ process, layout }: ControlledVm, spec: LaunchSpec): boolean {
  const maps = readFileSync(`/proc/${process.pid}/maps`, 'utf8');
  const { ino, size } = statSync(spec.ramFile, { bigint: true });
  const start = layout.main.address.toString(16);
  const end = (layout.main.address + BigInt(layout.main.length)).toString(16);
  const line = maps.split('\n').find((one) => one.startsWith(`${start}-`)) ?? '';
  const [range, permissions = '', offset, , inode, ...path] = line.split(/\s+/);
  return (
    range === `${start}-${end}` &&
    permissions.endsWith('p') &&
    Number.parseInt(offset ?? '', 16) === 0 &&
    inode === String(ino) &&
    path.join(' ') === spec.ramFile &&
    size === BigInt(layout.main.length)
  );
}
