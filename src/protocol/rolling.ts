import { z } from 'zod';

import { snapshotId } from './names.ts';
import { problem, snapshotInput } from './resources.ts';

/** Snapshots that are taken again and again, of which the last ones are kept. */
export const rollingInput = snapshotInput.omit({ name: true }).extend({
  everySeconds: z
    .int()
    .min(5)
    .max(7 * 24 * 3600)
    .describe('From the beginning of one to the beginning of the next'),
  keep: z.int().min(1).max(10_000).describe('How many of these snapshots are kept; older ones are removed'),
});
export type RollingInput = z.infer<typeof rollingInput>;

export const rolling = rollingInput.extend({
  experiment: z.string(),
  nextAt: z.iso.datetime(),
  taken: z.int(),
  skipped: z.int().describe('Beats at which something else was being done with the experiment'),
  lastSnapshot: snapshotId.nullable(),
  lastError: problem
    .extend({ at: z.iso.datetime() })
    .nullable()
    .describe('Why the last beat failed; null if it did not'),
});
export type Rolling = z.infer<typeof rolling>;

/** Rolling snapshots carry it; one without it is never removed by them. */
export const rollingLabel = 'staghorn.rolling';
