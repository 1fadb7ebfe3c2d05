import type { Labels, Snapshot, SnapshotVm } from '../protocol/resources.ts';
import type { BarrierHost } from './agent-barrier.ts';
import { unprovenWarnings } from './barrier/marker-plan.ts';
import { spreadNs } from './barrier/planning.ts';
import type { StopBarrierResults } from './stop-barrier.ts';

export interface SnapshotHead {
  readonly id: string;
  readonly experiment: string;
  readonly name: string | null;
  readonly description: string | null;
  readonly labels: Labels;
  /** The moment it comes from. */
  readonly parent: string | null;
  readonly createdAt: string;
}

/** The snapshot as it is catalogued, from what the hosts reported. */
export function describeSnapshot(
  head: SnapshotHead,
  hosts: readonly BarrierHost[],
  results: StopBarrierResults,
): Snapshot {
  const stopsNs = [...results.stops.values()].flatMap((stops) => [...stops.values()]);
  const firstStopNs = stopsNs.reduce<bigint | null>(
    (first, stop) => (first === null || stop < first ? stop : first),
    null,
  );
  const vms = hosts.flatMap(({ name }) => describeVms(name, results, firstStopNs));
  const sinceStopMs = firstStopNs === null ? null : Number(process.hrtime.bigint() - firstStopNs) / 1e6;
  const pauses = vms.map(({ pauseNs }) => pauseNs);
  return {
    ...head,
    stoppedAt: sinceStopMs === null ? null : new Date(Date.now() - sinceStopMs).toISOString(),
    state: 'sealed',
    methods: [...new Set(vms.map(({ method }) => method))],
    skewNs: spreadNs(stopsNs),
    clockErrorNs: Math.max(...hosts.map(({ clock }) => clock.errorNs)),
    pauseNs: { min: Math.min(...pauses), max: Math.max(...pauses) },
    drainMs: Math.max(...[...results.drain.values()].map(({ waitedMs }) => waitedMs)),
    provenPaths: [...results.drain.values()].reduce((sum, { markers }) => sum + markers.expected, 0),
    framesInFlight: vms.reduce((sum, { framesInFlight }) => sum + framesInFlight, 0),
    bytes: [...results.commit.values()].reduce((sum, { bytes }) => sum + bytes, 0),
    external: [...results.settle].flatMap(([host, { external }]) =>
      external.map((port) => ({ host, ...port })),
    ),
    warnings: warningsOf(results),
    vms,
  };
}

function warningsOf({ arm, listen, settle }: StopBarrierResults): string[] {
  const unproven = [...listen].map(
    ([host, { missing }]) => [host, { warnings: unprovenWarnings(missing) }] as const,
  );
  return [...arm, ...unproven, ...settle].flatMap(([host, { warnings }]) =>
    warnings.map((text) => `host ${host}: ${text}`),
  );
}

function describeVms(host: string, results: StopBarrierResults, firstStopNs: bigint | null): SnapshotVm[] {
  const stops = results.stops.get(host)!;
  const resumes = results.resumes.get(host)!;
  const ram = new Map(results.store.get(host)!.vms.map(({ name, ramBytes }) => [name, ramBytes]));
  const frames = new Map(results.drain.get(host)!.frames.map(({ vm, count }) => [vm, count]));
  return results.save.get(host)!.vms.map(({ name, method, stateBytes }) => {
    // A VM that its owner had paused was neither stopped nor resumed.
    const stoppedAtNs = stops.get(name) ?? firstStopNs ?? 0n;
    return {
      host,
      name,
      method,
      pauseNs: Number((resumes.get(name) ?? stoppedAtNs) - stoppedAtNs),
      stopOffsetNs: Number(stoppedAtNs - (firstStopNs ?? stoppedAtNs)),
      ramBytes: ram.get(name) ?? 0,
      stateBytes,
      framesInFlight: frames.get(name) ?? 0,
    };
  });
}
