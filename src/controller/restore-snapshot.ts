import type { RestoreInput, RestoreResult, SnapshotVm } from '../protocol/resources.ts';
import { restoreProcedure } from './barrier/procedures.ts';
import type { StoredSnapshot } from './catalog.ts';
import type { Experiments } from './experiments.ts';
import type { OperationContext } from './operations.ts';
import { RestoreBarrier } from './restore-barrier.ts';

/** Brings a snapshot back: from the request to the last VM running, and until every frame is delivered. */
export async function restoreSnapshot(
  experiments: Experiments,
  { snapshot, manifests }: StoredSnapshot,
  input: RestoreInput,
  { signal, report }: OperationContext,
): Promise<RestoreResult> {
  const startedAtNs = process.hrtime.bigint();
  report({ step: 'connect', message: 'connecting to the hosts' });
  const hosts = await experiments.connect(snapshot.experiment, new Set(Object.keys(manifests)));
  const barrier = new RestoreBarrier({
    snapshot: snapshot.id,
    manifests,
    stopOffsetsNs: stopOffsets(snapshot.vms),
    input,
    hosts,
    report,
  });
  await barrier.carryThrough(restoreProcedure, signal);
  const resumedNs = [...barrier.resumes.values()].flatMap((resumes) => [...resumes.values()]);
  const lastNs = resumedNs.reduce((last, instant) => (instant > last ? instant : last), startedAtNs);
  return {
    snapshot: snapshot.id,
    durationMs: Number(lastNs - startedAtNs) / 1e6,
    vms: resumedNs.length,
    framesDelivered: [...barrier.settled.values()].reduce(
      (sum, { framesReplayed }) => sum + framesReplayed,
      0,
    ),
    warnings: [...barrier.settled].flatMap(([host, { warnings }]) =>
      warnings.map((text) => `host ${host}: ${text}`),
    ),
  };
}

function stopOffsets(vms: readonly SnapshotVm[]): Map<string, Map<string, bigint>> {
  const byHost = new Map<string, Map<string, bigint>>();
  for (const { host, name, stopOffsetNs } of vms) {
    const offsets = byHost.get(host) ?? new Map<string, bigint>();
    byHost.set(host, offsets.set(name, BigInt(stopOffsetNs)));
  }
  return byHost;
}
