import { z } from 'zod';

import { resourceName } from '../protocol/names.ts';

/** Parameters of paths. What no resource can be called is a matter of 404, not of 400: only text is asked for. */
export const experimentParams = z.object({ name: z.string().describe('Name of the experiment') });
export const snapshotParams = z.object({ id: z.string().describe('Id of the snapshot') });
export const operationParams = z.object({ id: z.string().describe('Id of the operation') });

export const snapshotsQuery = z.strictObject({
  experiment: resourceName.optional().describe('Only those of this experiment'),
  label: z
    .preprocess(
      (given) => (typeof given === 'string' ? [given] : given),
      z.array(z.string().max(320)).max(20),
    )
    .optional()
    .describe('Only those with this label: `key=value`, or `key` for any value; several must all fit'),
  name: z
    .string()
    .max(63)
    .refine((name) => name.split('*').length <= 5, 'may hold "*" four times')
    .optional()
    .describe('Only those whose name fits: `*` stands for any characters, `?` for one'),
});

const hostPair = z.string().regex(/^[^=]+=[^=]+$/, 'must be HOST=HOST');

export const importQuery = z.strictObject({
  experiment: resourceName.describe('The experiment that it becomes a snapshot of'),
  name: resourceName.optional().describe('In place of the name that it has'),
  map: z
    .preprocess((given) => (typeof given === 'string' ? [given] : given), z.array(hostPair).max(1000))
    .transform((pairs) => Object.fromEntries(pairs.map((pair) => pair.split('=') as [string, string])))
    .optional()
    .describe('`HOST=HOST`: a host of the archive, and the host of the experiment that takes its part'),
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
