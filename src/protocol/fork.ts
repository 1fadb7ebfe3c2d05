import { z } from 'zod';

import { snapshotId } from './names.ts';

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
