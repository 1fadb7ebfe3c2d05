import { z } from 'zod';

import { resourceName, snapshotId } from './names.ts';

/** Identifiers of a tunnel's network as Open vSwitch has them in `options:key`; 0 where there is none. */
export const tunnelKey = z.int().min(0).max(0xffff_ffff);

/**
 * Where a fork is put so that it meets nobody: decided by the controller, the same on every host of the fork. All
 * that it has on a host ends in ".f" and its number, and each of its tunnels has a key of its own.
 */
export const placement = z.strictObject({
  fork: z.int().positive().describe('Number of the fork'),
  tunnelKeys: z.record(z.string(), tunnelKey).describe('Its own key for each key of the snapshot'),
});
export type Placement = z.infer<typeof placement>;

/** What an experiment that is a fork came from. */
export const forkOrigin = placement.extend({ snapshot: snapshotId });
export type ForkOrigin = z.infer<typeof forkOrigin>;

/** The name that a VM has in a fork: known to whoever knows its own and the fork's number. */
export const forkVmName = (name: string, fork: number): string => `${name}${forkSuffix(fork)}`;
export const forkSuffix = (fork: number): string => `.f${fork}`;
export const forkSuffixPattern = /\.f([1-9]\d{0,8})$/;

/** The names that a VM may have had: its own, that of what it would be a fork of, and so on. */
export function formerNames(name: string): string[] {
  const before = name.replace(forkSuffixPattern, '');
  return before === name || before === '' ? [name] : [name, ...formerNames(before)];
}

export const forkInput = z.strictObject({
  count: z.int().min(1).max(100).default(1).describe('How many copies of the whole experiment'),
  name: resourceName
    .optional()
    .describe('Their names begin with this, and end in a number; EXPERIMENT-fork if left out'),
  verify: z.boolean().default(true).describe('Recompute the checksums of RAM, once for all of them'),
  paused: z
    .boolean()
    .default(false)
    .describe(
      'Leave them loaded and standing, at most 10 a request; to resume one is all it takes to run it',
    ),
});
export type ForkInput = z.infer<typeof forkInput>;

export const forkResult = z.strictObject({
  snapshot: snapshotId,
  durationMs: z
    .number()
    .describe(
      'From the request to the last VM of the last fork running, or standing if they are left paused',
    ),
  forks: z.array(
    z.strictObject({
      experiment: resourceName,
      durationMs: z.number().describe('From the request to its last VM running or standing'),
      vms: z.array(z.strictObject({ host: z.string(), name: z.string() })),
      framesDelivered: z.int().describe('Frames in flight of the snapshot that reached their VMs'),
      warnings: z.array(z.string()),
    }),
  ),
  warnings: z.array(z.string()).describe('What the forks are not joined to, in words'),
});
export type ForkResult = z.infer<typeof forkResult>;

export const resumeResult = z.strictObject({
  experiment: resourceName,
  durationMs: z.number().describe('From the request to the last VM running'),
});
export type ResumeResult = z.infer<typeof resumeResult>;
