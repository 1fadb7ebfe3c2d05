import type { BlockDevice } from '../../qmp/commands.ts';
import type { QmpClient } from '../../qmp/index.ts';
import { driveParameters, diskOptions, optionOfDevice, type DiskOption } from './drive-options.ts';
import { readChain, type ChainSurroundings, type LiveDisk } from './live-disk.ts';
import { readOpenFiles } from './open-files.ts';
import type { QemuProcess } from '../qemu-process.ts';
import { jobPrefix } from './jobs.ts';

export interface DisksOfVm {
  readonly disks: readonly LiveDisk[];
  /** What a snapshot cannot keep, in words. */
  readonly obstacles: readonly string[];
}

/** The disks of a running VM: those that its guest can write, and the media that it can read. */
export async function readDisks(process: QemuProcess, qmp: QmpClient): Promise<DisksOfVm> {
  const devices = await qmp.execute('query-block');
  const files = await readOpenFiles(process.pid);
  const found = diskOptions(process.options);
  const disks: LiveDisk[] = [];
  const obstacles = await jobObstacles(qmp);
  for (const device of devices) {
    const disk = await readDisk(device, found, process, { cwd: process.cwd, files });
    if (typeof disk === 'string') obstacles.push(`disk ${labelOf(device)}: ${disk}`);
    else if (disk !== null) disks.push(disk);
  }
  return { disks, obstacles };
}

const labelOf = ({ device, qdev, inserted }: BlockDevice) =>
  device || qdev || inserted?.file || 'without a name';

/** Null: it has nothing that a restore would have to bring back. */
async function readDisk(
  device: BlockDevice,
  found: readonly DiskOption[],
  process: QemuProcess,
  surroundings: ChainSurroundings,
): Promise<LiveDisk | string | null> {
  const { inserted } = device;
  const key = optionOfDevice(found, device);
  if (inserted === undefined) return key?.kind === 'drive' ? { ...key, ...noMedium } : null;
  const chain = await readChain(inserted, surroundings);
  // What is only read is found again by the command line, whatever it is.
  if (inserted.ro && (key === null || typeof chain === 'string')) return null;
  if (typeof chain === 'string') return chain;
  if (key === null) return 'it is not on the command line of QEMU, so a restore would start without it';
  if (!inserted.ro && isFlash(device, found, process))
    return 'it is a flash memory (pflash) that can be written';
  return {
    ...key,
    node: inserted['node-name']!,
    readOnly: inserted.ro,
    virtualBytes: inserted.image['virtual-size'],
    cache: { direct: inserted.cache.direct, noFlush: inserted.cache['no-flush'] },
    detectZeroes: inserted.detect_zeroes,
    chain,
  };
}

const noMedium = {
  node: '',
  readOnly: true,
  virtualBytes: 0,
  cache: { direct: false, noFlush: false },
  detectZeroes: 'off' as const,
  chain: [],
};

function isFlash(
  { device, qdev }: BlockDevice,
  found: readonly DiskOption[],
  { options }: QemuProcess,
): boolean {
  const option = found.find(({ names }) => names.includes(device));
  const type = option === undefined ? undefined : driveParameters(options[option.index]!)?.get('if');
  return type === 'pflash' || /\/system\.flash\d+$/.test(qdev ?? '');
}

/** A node that a job works on cannot be made immutable; jobs of ours are ended when a snapshot begins. */
async function jobObstacles(qmp: QmpClient): Promise<string[]> {
  const jobs = await qmp.execute('query-block-jobs');
  return jobs
    .filter(({ device }) => !device.startsWith(jobPrefix))
    .map(({ device, type }) => `block job ${device} (${type}) is under way`);
}
