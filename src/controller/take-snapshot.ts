import type { Snapshot, SnapshotInput } from '../protocol/resources.ts';
import { snapshotProcedure } from './barrier/procedures.ts';
import type { Catalog } from './catalog.ts';
import type { Experiments } from './experiments.ts';
import type { OperationContext } from './operations.ts';
import { describeSnapshot, type SnapshotHead } from './snapshot-report.ts';
import { StopBarrier } from './stop-barrier.ts';

const removeTimeoutMs = 60_000;

export interface SnapshotTools {
  readonly experiments: Experiments;
  readonly catalog: Catalog;
}

/** Takes a snapshot from beginning to end. It is catalogued as sealed, or nothing of it is left. */
export async function takeSnapshot(
  { experiments, catalog }: SnapshotTools,
  head: SnapshotHead,
  input: SnapshotInput,
  { signal, report }: OperationContext,
): Promise<Snapshot> {
  catalog.putSnapshot({ snapshot: unfinished(head), manifests: {} });
  let barrier: StopBarrier | undefined;
  try {
    report({ step: 'connect', message: 'connecting to the hosts' });
    const hosts = await experiments.connect(head.experiment);
    barrier = new StopBarrier({
      experiment: head.experiment,
      snapshot: { id: head.id, createdAt: head.createdAt, parent: head.parent, input },
      hosts,
      externalFrames: experiments.externalFramesOf(head.experiment),
      report,
    });
    await barrier.carryThrough(snapshotProcedure, signal);
    const { results } = barrier;
    const snapshot = describeSnapshot(head, hosts, results);
    const manifests = Object.fromEntries(
      [...results.commit].map(([host, sealed]) => [host, sealed.manifestSha256]),
    );
    catalog.putSnapshot({ snapshot, manifests });
    return snapshot;
  } catch (error) {
    const left = barrier?.maySealed === true && !(await removeParts(experiments, head));
    // What could not be removed stays listed, so that somebody can delete it when the host is back.
    if (left) catalog.putSnapshot({ snapshot: { ...unfinished(head), state: 'failed' }, manifests: {} });
    else catalog.removeSnapshot(head.id);
    throw error;
  }
}

/** Removes what hosts had sealed before another one failed. @returns whether every host confirmed */
async function removeParts(experiments: Experiments, { id, experiment }: SnapshotHead): Promise<boolean> {
  try {
    const hosts = await experiments.connect(experiment);
    await Promise.all(
      hosts.map(({ link }) => link.call('removeSnapshot', { snapshot: id }, removeTimeoutMs)),
    );
    return true;
  } catch {
    return false;
  }
}

/** What the catalog has of a snapshot under way, so that a crash of the controller shows. */
function unfinished(head: SnapshotHead): Snapshot {
  return {
    ...head,
    state: 'storing',
    methods: [],
    skewNs: 0,
    clockErrorNs: 0,
    hosts: [],
    pauseNs: { min: 0, max: 0 },
    drainMs: 0,
    provenPaths: 0,
    framesInFlight: 0,
    bytes: 0,
    external: [],
    warnings: [],
    vms: [],
  };
}
