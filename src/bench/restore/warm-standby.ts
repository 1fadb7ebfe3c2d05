import { operate } from '../../demo/operate.ts';
import { forkResult, resumeResult } from '../../protocol/fork.ts';
import type { RestoreMeasurement } from './measurement.ts';
import { withRestoreLab } from './restore-lab.ts';

/** Staghorn's, of a fork that stands loaded: from the request to resume it to its VM running. */
export const warmStandby: RestoreMeasurement = {
  name: 'staghorn fork from warm standby',
  limitMs: 25,
  measure: (size, options) =>
    withRestoreLab(size, options, async ({ client, snapshot }) => {
      const { signal } = options;
      const values: number[] = [];
      for (let round = 0; round < size.rounds; round++) {
        const made = await operate(
          client,
          `/v1/snapshots/${snapshot}/forks`,
          { paused: true },
          forkResult,
          signal,
        );
        const path = `/v1/experiments/${made.forks[0]!.experiment}`;
        const { durationMs } = await operate(client, `${path}/resume`, {}, resumeResult, signal);
        values.push(durationMs);
        await client.send('DELETE', `${path}?destroy=true`);
      }
      return values;
    }),
};
