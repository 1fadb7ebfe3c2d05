import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { labStatus, type Lab } from '../../src/lab/index.ts';
import { QmpClient } from '../../src/qmp/index.ts';
import { readQemuProcess } from '../../src/vmm/qemu-process.ts';
import { type Bench, runStates, startBench, stopBench } from './harness.ts';

describe('a VM that was restored', { timeout: 120_000 }, () => {
  let lab: Lab;
  let bench: Bench;

  beforeAll(async () => {
    ({ lab, bench } = await startBench(`name: restored-reset-${process.pid}
management: 198.18.142.0/24
underlay: 198.18.143.0/24
hosts: [{ name: h1 }]
vms:
  - { name: a, host: h1, memoryMiB: 96 }
  - { name: b, host: h1, memoryMiB: 96 }
`));
  }, 300_000);
  afterAll(async () => {
    await stopBench(bench, lab);
  }, 60_000);

  it('lives on when its machine is reset, virtio NICs and all', async () => {
    const id = await bench.snapshot();
    const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`, { replace: true });
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    for (const { pid } of (await labStatus(lab.name)).vms) {
      const { qmpSockets } = (await readQemuProcess(pid!))!;
      const qmp = await QmpClient.connect({ path: `/proc/${pid}/root${qmpSockets[0]}` });
      try {
        // The lab's QEMUs end at a reset otherwise.
        await qmp.execute('set-action', { reboot: 'reset' });
        const reset = qmp.waitEvent('RESET', { timeoutMs: 20_000 });
        await qmp.execute('system_reset');
        await reset;
        expect((await qmp.execute('query-status')).running).toBe(true);
      } finally {
        await qmp.close();
      }
    }
    expect(await runStates(lab)).toEqual(['running', 'running']);
  });
});
