import { operate } from '../../demo/operate.ts';
import { restoreResult } from '../../protocol/resources.ts';
import type { RestoreMeasurement } from './measurement.ts';
import { withRestoreLab } from './restore-lab.ts';

/** Staghorn's, of a VM that stands on the same snapshot already: from one request to the next, with all between. */
export const resets: RestoreMeasurement = {
  name: 'staghorn reset in place, one after another',
  limitMs: 40,
  measure: (size, options) =>
    withRestoreLab(size, options, async ({ client, snapshot }) => {
      const path = `/v1/snapshots/${snapshot}/restore`;
      const values: number[] = [];
      // Started by the first, put back by the second, which compares the flows of the switches.
      for (let round = -2; round < size.rounds; round++) {
        const startedAtMs = performance.now();
        await operate(client, path, { replace: true }, restoreResult, options.signal);
        if (round >= 0) values.push(performance.now() - startedAtMs);
      }
      return values;
    }),
};
