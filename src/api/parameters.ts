import { z } from 'zod';

import { resourceName } from '../protocol/names.ts';

/** Parameters of paths. What no resource can be called is a matter of 404, not of 400: only text is asked for. */
export const experimentParams = z.object({ name: z.string().describe('Name of the experiment') });
export const snapshotParams = z.object({ id: z.string().describe('Id of the snapshot') });
export const operationParams = z.object({ id: z.string().describe('Id of the operation') });

export const snapshotsQuery = z.strictObject({
  experiment: resourceName.optional().describe('Only those of this experiment'),
});

export const removalQuery = z.strictObject({
  destroy: z
    .enum(['true', 'false'])
    .default('false')
    .transform((word) => word === 'true')
    .describe('Of a fork: end its VMs, and remove its bridges, taps and files'),
});

export const eventsHeaders = z.looseObject({
  'last-event-id': z
    .string()
    .regex(/^\d{1,15}$/, 'must be the id of an event')
    .transform(Number)
    .optional()
    .describe('Send the events after this one'),
});
