import type { KeptRam } from '../../vmm/save-methods.ts';
import type { BenchVm } from './bench-vm.ts';

/** Stops a VM, keeps its devices and RAM by `fork`, and lets it go on. @returns how long that took, in ms */
export async function pauseByFork(
  vm: BenchVm,
  whileKept: (ram: KeptRam) => Promise<void> = () => Promise.resolve(),
): Promise<number> {
  const { controlled } = vm;
  await controlled.prepareSave('fork');
  const startedMs = performance.now();
  await controlled.qmp.execute('stop');
  const { ram } = await controlled.keep();
  await controlled.qmp.execute('cont');
  const pauseMs = performance.now() - startedMs;
  try {
    await whileKept(ram);
  } finally {
    await controlled.readDeviceState();
    await controlled.releaseRam();
  }
  return pauseMs;
}

/** QEMU's own way: stopped, all of its state migrated to a file, and on. @returns how long that took, in ms */
export async function pauseByMigration({ controlled }: BenchVm, file: string): Promise<number> {
  const { qmp } = controlled;
  await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 100 * 2 ** 30 });
  const startedMs = performance.now();
  await qmp.execute('stop');
  await qmp.execute('migrate', { uri: `exec:cat > ${file}` });
  for (;;) {
    const { status } = await qmp.execute('query-migrate');
    if (status === 'completed') break;
    if (status === 'failed' || status === 'cancelled') throw new Error(`the migration ${status}`);
  }
  await qmp.execute('cont');
  return performance.now() - startedMs;
}
