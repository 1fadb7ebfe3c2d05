import { execFile } from 'node:child_process';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import type { SavedRam } from '../../native/ram.ts';
import { RamForm } from '../../store/ram-form.ts';
import type { BenchVm } from './bench-vm.ts';
import { pauseByFork } from './pause.ts';

export interface SaveRound {
  readonly dataBytes: number;
  readonly saveMs: number;
  /** `cp` of the file that was saved to the same file system. */
  readonly copyMs: number;
  /** The same until it was on disk. */
  readonly saveSyncedMs: number;
  readonly copySyncedMs: number;
}

/**
 * Saves RAM beside the running VM, and copies the file. What one leaves to be written back does not meet the other, and
 * both write to memory that was in use a moment ago: where a hypervisor takes free memory back, the first writes to it
 * cost more than all else.
 */
export async function saveAndCopy(vm: BenchVm): Promise<SaveRound> {
  const [file, copy] = [join(vm.directory, 'bench.ram'), join(vm.directory, 'copy.ram')];
  const storing = new RamForm('bench.ram', { parent: null, level: 0 }).storing(vm.directory);
  try {
    let saved: SavedRam | undefined;
    let save = { ms: 0, syncedMs: 0 };
    await pauseByFork(vm, async (ram, { layout }) => {
      save = await timed(file, layout.main.length, async () => {
        saved = await ram.write(layout.main, file, { storing });
      });
    });
    const copied = await timed(copy, saved!.fileBytes, () => run('cp', ['--reflink=never', file, copy]));
    return {
      dataBytes: saved!.dataBytes,
      ...{ saveMs: save.ms, saveSyncedMs: save.syncedMs },
      ...{ copyMs: copied.ms, copySyncedMs: copied.syncedMs },
    };
  } finally {
    await Promise.all([file, copy].map((one) => rm(one, { force: true })));
  }
}

async function timed(
  file: string,
  bytes: number,
  work: () => Promise<unknown>,
): Promise<{ ms: number; syncedMs: number }> {
  await rm(file, { force: true });
  await run('sync', []);
  // Of the same file system, and gone before it is written back.
  await run('dd', ['if=/dev/zero', `of=${file}`, 'bs=1M', `count=${Math.ceil(bytes / 2 ** 20)}`]);
  await rm(file);
  const startedMs = performance.now();
  await work();
  const ms = performance.now() - startedMs;
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
  return { ms, syncedMs: performance.now() - startedMs };
}

const run = promisify(execFile);
