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

/** Saves RAM beside the running VM, and copies the file; what one leaves to be written back does not meet the other. */
export async function saveAndCopy(vm: BenchVm): Promise<SaveRound> {
  const [file, copy] = [join(vm.directory, 'bench.ram'), join(vm.directory, 'copy.ram')];
  const storing = new RamForm('bench.ram', { parent: null, level: 0 }).storing(vm.directory);
  try {
    let saved: SavedRam | undefined;
    let save = { ms: 0, syncedMs: 0 };
    await pauseByFork(vm, async (ram, { layout }) => {
      save = await timed(file, async () => {
        saved = await ram.write(layout.main, file, { storing });
      });
    });
    const copied = await timed(copy, () => run('cp', ['--reflink=never', file, copy]));
    return {
      dataBytes: saved!.dataBytes,
      ...{ saveMs: save.ms, saveSyncedMs: save.syncedMs },
      ...{ copyMs: copied.ms, copySyncedMs: copied.syncedMs },
    };
  } finally {
    await Promise.all([file, copy].map((one) => rm(one, { force: true })));
  }
}

async function timed(file: string, work: () => Promise<unknown>): Promise<{ ms: number; syncedMs: number }> {
  await rm(file, { force: true });
  await run('sync', []);
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
