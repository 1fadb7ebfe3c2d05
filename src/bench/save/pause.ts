import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';

import type { ControlledVm } from '../../vmm/controlled-vm.ts';
import type { KeptRam } from '../../vmm/save-methods.ts';
import { DiskDirectory } from '../../vmm/disks/disk-directory.ts';
import type { BenchVm } from './bench-vm.ts';

const migrationPollMs = 5;

type WhileKept = (ram: KeptRam, controlled: ControlledVm) => Promise<void>;

/** How long a pause was, in ms, and of it what the devices took, and QEMU's main thread stood under the tracer. */
export interface Pause {
  readonly ms: number;
  readonly devicesMs: number;
  readonly forkMs: number;
}

/** Stops a VM, keeps its devices and RAM by `fork`, and lets it go on. */
export async function pauseByFork(
  vm: BenchVm,
  whileKept: WhileKept = () => Promise.resolve(),
): Promise<Pause> {
  const controlled = await vm.control();
  try {
    await controlled.prepareSave(
      'fork',
      { directory: tmpdir(), maxBytesPerSecond: 0 },
      new DiskDirectory(tmpdir()),
    );
    const startedMs = performance.now();
    await controlled.qmp.execute('stop');
    const { ram, stateNs } = await controlled.keep();
    await controlled.qmp.execute('cont');
    const ms = performance.now() - startedMs;
    await whileKept(ram, controlled);
    return { ms, devicesMs: stateNs / 1e6, forkMs: (ram.forkNs ?? 0) / 1e6 };
  } finally {
    await controlled.close();
  }
}

/** QEMU's own way: stopped, all of its state migrated to a file, and on. @returns how long that took, in ms */
export async function pauseByMigration(vm: BenchVm, file: string): Promise<number> {
  const controlled = await vm.control();
  try {
    const { qmp } = controlled;
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 100 * 2 ** 30 });
    const startedMs = performance.now();
    await qmp.execute('stop');
    await qmp.execute('migrate', { uri: `exec:cat > ${file}` });
    for (;;) {
      const { status } = await qmp.execute('query-migrate');
      if (status === 'completed') break;
      if (status === 'failed' || status === 'cancelled') throw new Error(`the migration ${status}`);
      await delay(migrationPollMs);
    }
    await qmp.execute('cont');
    return performance.now() - startedMs;
  } finally {
    await controlled.close();
  }
}
