import { StaghornError } from '../../errors/index.ts';
import type { RestoreInput, Snapshot, SnapshotVm } from '../../protocol/resources.ts';

/** What of a snapshot goes onto one host. */
export interface RestorePart {
  /** The host that it was taken on, and the one that takes it now. */
  readonly from: string;
  readonly to: string;
  /** Its VMs; null: all that the host had. */
  readonly vms: readonly string[] | null;
  readonly manifestSha256: string;
  /** When each VM had stopped, counted from the first one's stop. */
  readonly stopOffsetsNs: ReadonlyMap<string, bigint>;
}

export interface RestorePlan {
  readonly parts: readonly RestorePart[];
  readonly warnings: readonly string[];
}

/**
 * Which host is asked for what, as the choices of a restore say.
 * @param hosts of the experiment as it is now
 * @throws StaghornError 'not-found', 'invalid-input'
 */
export function planRestore(
  { snapshot, manifests }: { snapshot: Snapshot; manifests: Readonly<Record<string, string>> },
  { vms: names, map = {} }: Pick<RestoreInput, 'vms' | 'map'>,
  hosts: readonly string[],
): RestorePlan {
  const unknown = (names ?? []).filter((name) => !snapshot.vms.some((vm) => vm.name === name));
  if (unknown.length > 0)
    throw new StaghornError('not-found', `snapshot ${snapshot.id} has no VM ${unknown.join(', ')}`);
  const strangers = Object.keys(map).filter((from) => manifests[from] === undefined);
  if (strangers.length > 0)
    throw new StaghornError('not-found', `snapshot ${snapshot.id} has no host ${strangers.join(', ')}`);
  const parts = Object.entries(manifests)
    .map(([from, manifestSha256]) => {
      const all = snapshot.vms.filter(({ host }) => host === from);
      const chosen = all.filter(({ name }) => names === undefined || names.includes(name));
      const whole = chosen.length === all.length;
      return { from, to: map[from] ?? from, manifestSha256, chosen, whole };
    })
    .filter(({ chosen }) => chosen.length > 0);
  requireHosts(parts, hosts);
  const chosen = parts.flatMap((part) => part.chosen);
  return {
    parts: parts.map(({ from, to, manifestSha256, chosen, whole }) => ({
      ...{ from, to, manifestSha256, vms: whole ? null : chosen.map(({ name }) => name) },
      stopOffsetsNs: new Map(chosen.map(({ name, stopOffsetNs }) => [name, BigInt(stopOffsetNs)])),
    })),
    warnings: chosen.length === snapshot.vms.length ? [] : [subsetWarning(chosen, snapshot.vms)],
  };
}

function requireHosts(parts: readonly { from: string; to: string }[], hosts: readonly string[]): void {
  for (const { from, to } of parts) {
    if (!hosts.includes(to))
      throw new StaghornError('not-found', `the experiment has no host ${to} to restore what ${from} had`);
    const twice = parts.find((other) => other.to === to && other.from !== from);
    if (twice !== undefined) {
      throw new StaghornError(
        'invalid-input',
        `host ${to} would take what ${from} and ${twice.from} had; map each to a host of its own`,
      );
    }
  }
}

function subsetWarning(chosen: readonly SnapshotVm[], all: readonly SnapshotVm[]): string {
  const names = chosen.map(({ name }) => name).join(', ');
  return `only ${names} of ${all.length} VMs: what they and the others have sent each other does not fit together, and frames in flight to the others are left out`;
}
