import type { RestoreInput, RestoreResult, RestoredClock } from '../../protocol/resources.ts';
import type { StoredSnapshot } from '../catalog/catalog.ts';
import type { RestoreBarrier } from './restore-barrier.ts';
import type { RestorePlan } from './restore-plan.ts';

/** What a restore did, from what the hosts reported. */
export function describeRestore(
  { snapshot }: StoredSnapshot,
  plan: RestorePlan,
  { clock, dryRun, paused }: RestoreInput,
  barrier: RestoreBarrier,
  startedAtNs: bigint,
): RestoreResult {
  const nowNs = process.hrtime.bigint();
  const lastNs = barrier.lastResumeNs ?? nowNs;
  const checked = [...barrier.checked];
  const settled = [...barrier.settled.values()];
  return {
    snapshot: snapshot.id,
    durationMs: Number(lastNs - startedAtNs) / 1e6,
    vms: checked.reduce((sum, [, { vms }]) => sum + vms.length, 0),
    framesDelivered: settled.reduce((sum, { framesReplayed }) => sum + framesReplayed, 0),
    dryRun,
    paused: paused && !dryRun,
    destroyed: checked.flatMap(([host, { running }]) => running.map((vm) => ({ host, vm }))),
    clock: dryRun ? null : restoredClock(clock, barrier, nowNs),
    warnings: [...plan.warnings, ...hostWarnings(barrier), ...barrier.markers.warnings],
  };
}

/** Those of the end hold those of the check. */
function hostWarnings({ checked, settled }: RestoreBarrier): string[] {
  const all = settled.size > 0 ? settled : checked;
  return [...all].flatMap(([host, { warnings }]) => warnings.map((text) => `host ${host}: ${text}`));
}

/** Guests were set to the instant at which the load began; the first that runs says how long ago that was. */
function restoredClock(
  mode: RestoredClock['mode'],
  { elapsedMs, prepared, loadBeganNs, resumes }: RestoreBarrier,
  nowNs: bigint,
): RestoredClock {
  if (mode === 'hidden') return { mode, elapsedMs, advancedMs: 0, behindMs: null };
  const advancedNs = latest([...prepared.values()].map((host) => host.advancedNs));
  const resumedNs = [...resumes.values()].flatMap((instants) => [...instants.values()]);
  const firstNs = resumedNs.reduce((first, at) => (at < first ? at : first), nowNs);
  return {
    mode,
    elapsedMs,
    advancedMs: Number(advancedNs) / 1e6,
    behindMs: Number(firstNs - loadBeganNs) / 1e6,
  };
}

const latest = (instants: readonly bigint[]) =>
  instants.reduce((last, instant) => (instant > last ? instant : last), 0n);
