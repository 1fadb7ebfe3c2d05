import { z } from 'zod';

import { snapshotId } from './names.ts';

const count = z.int().nonnegative().max(100_000).default(0);

/** Which snapshots of an experiment stay. What any of the rules keeps is kept. */
export const pruneInput = z
  .strictObject({
    keepLast: count.describe('The newest ones'),
    keepHourly: count.describe('The newest one of each of the last hours (UTC) that have any'),
    keepDaily: count.describe('Likewise of days'),
    keepWeekly: count.describe('Likewise of weeks, which begin on Monday'),
    includeKept: z
      .boolean()
      .default(false)
      .describe('Remove those too that have a name or a label "keep"; they stay otherwise'),
    dryRun: z.boolean().default(false).describe('Only say what would be removed'),
  })
  .refine(
    ({ keepLast, keepHourly, keepDaily, keepWeekly }) => keepLast + keepHourly + keepDaily + keepWeekly > 0,
    'must keep something: at least one of keepLast, keepHourly, keepDaily and keepWeekly is above 0',
  );
export type PruneInput = z.infer<typeof pruneInput>;

export const pruneResult = z.strictObject({
  removed: z.array(snapshotId).describe('With dryRun: what would be removed'),
  kept: z.array(z.strictObject({ snapshot: snapshotId, reasons: z.array(z.string()) })),
});
export type PruneResult = z.infer<typeof pruneResult>;
