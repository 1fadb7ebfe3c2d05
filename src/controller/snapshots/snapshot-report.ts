import type { Labels, Snapshot, SnapshotHost, SnapshotVm } from '../../protocol/resources.ts';
import type { BarrierHost } from '../hosts/agent-barrier.ts';
import { spreadNs } from '../barrier/planning.ts';
import { errorNsAt, mutualErrorNs } from '../hosts/clock-offset.ts';
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
    clockErrorNs: mutualErrorNs(
      hosts.map(({ clock }) => clock),
      firstStopNs ?? 0n,
    ),
    hosts: describeHosts(hosts, results, firstStopNs),
    pauseNs: extremesOf(pauses),
    drainMs: extremesOf([...results.drain.values()].map(({ waitedMs }) => waitedMs)).max,
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

function describeHosts(
  hosts: readonly BarrierHost[],
  { cut }: StopBarrierResults,
  firstStopNs: bigint | null,
): SnapshotHost[] {
  return hosts.map(({ name, clock }) => {
    const { wakeLatenessNs, realtime } = cut.get(name)!;
    const clockErrorNs = firstStopNs === null ? clock.errorNs : errorNsAt(clock, firstStopNs);
    return { host: name, clockErrorNs, clockSource: clock.source, wakeLatenessNs, realtime };
  });
}

/** Without spreading, which takes no more arguments than the stack has room for. */
function extremesOf(values: readonly number[]) {
  return values.reduce(({ min, max }, value) => ({ min: Math.min(min, value), max: Math.max(max, value) }), {
    min: values[0] ?? 0,
    max: values[0] ?? 0,
  });
}

function warningsOf({ arm, markers, settle }: StopBarrierResults): string[] {
  const ofHosts = [...arm, ...settle].flatMap(([host, { warnings }]) =>
    warnings.map((text) => `host ${host}: ${text}`),
  );
  return [...ofHosts, ...markers.warnings];
}

function describeVms(host: string, results: StopBarrierResults, firstStopNs: bigint | null): SnapshotVm[] {
  const stops = results.stops.get(host)!;
  const resumes = results.resumes.get(host)!;
  const ram = new Map(results.store.get(host)!.vms.map(({ name, ramBytes }) => [name, ramBytes]));
  const frames = new Map(results.drain.get(host)!.frames.map(({ vm, count }) => [vm, count]));
  return results.save.get(host)!.vms.map(({ name, method, stateBytes }) => {
    // A VM that its owner had paused was neither stopped nor resumed.
    const stoppedAtNs = stops.get(name) ?? firstStopNs ?? 0n;
    const resumedAtNs = resumes.get(name) ?? null;
    return {
      host,
      name,
      method,
      pauseNs: Number((resumedAtNs ?? stoppedAtNs) - stoppedAtNs),
      stopOffsetNs: Number(stoppedAtNs - (firstStopNs ?? stoppedAtNs)),
      resumeOffsetNs: resumedAtNs === null ? null : Number(resumedAtNs - (firstStopNs ?? stoppedAtNs)),
      ramBytes: ram.get(name) ?? 0,
      stateBytes,
      framesInFlight: frames.get(name) ?? 0,
    };
  });
}
