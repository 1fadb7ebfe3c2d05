import type { QmpClient } from '../qmp/index.ts';

/** The threads of a VM's vCPUs, of its process. */
export async function readVcpuThreads(qmp: QmpClient): Promise<number[]> {
  return (await qmp.execute('query-cpus-fast')).map((cpu) => cpu['thread-id']);
}
