import { asStaghornError } from '../../errors/index.ts';
import type { Snapshot, SnapshotInput } from '../../protocol/resources.ts';
import type { BarrierHost } from '../hosts/agent-barrier.ts';
import { snapshotProcedure } from '../barrier/procedures.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Experiments } from '../experiments.ts';
import type { OperationContext } from '../operations.ts';
import { describeSnapshot, type SnapshotHead } from './snapshot-report.ts';
import { StopBarrier, type StopBarrierResults } from './stop-barrier.ts';

const removeTimeoutMs = 60_000;
/** How often a cut that comes too late is made, and by how many attempts further ahead each is planned. */
const barriersMax = 3;
const attemptsPlannedFurther = 2;

export interface SnapshotTools {
  readonly experiments: Experiments;
  readonly catalog: Catalog;
}

/** Takes a snapshot from beginning to end. It is catalogued as sealed, or nothing of it is left. */
export async function takeSnapshot(
  tools: SnapshotTools,
  head: SnapshotHead,
  input: SnapshotInput,
  context: OperationContext,
): Promise<Snapshot> {
  const { experiments, catalog } = tools;
  catalog.putSnapshot({ snapshot: unfinished(head), manifests: {} });
  const barriers: StopBarrier[] = [];
  try {
    const { hosts, results } = await carryBarrierThrough(experiments, { head, input, barriers }, context);
    const snapshot = describeSnapshot(head, hosts, results);
    const manifests = Object.fromEntries(
      [...results.commit].map(([host, sealed]) => [host, sealed.manifestSha256]),
    );
    catalog.sealSnapshot({ snapshot, manifests });
    return snapshot;
  } catch (error) {
    const maySealed = barriers.some((barrier) => barrier.maySealed);
    const left = maySealed && !(await removeParts(experiments, head));
    // What could not be removed stays listed, so that somebody can delete it when the host is back.
    if (left) catalog.putSnapshot({ snapshot: { ...unfinished(head), state: 'failed' }, manifests: {} });
    else catalog.removeSnapshot(head.id);
    throw error;
  }
}

interface Taking {
  readonly head: SnapshotHead;
  readonly input: SnapshotInput;
  /** All that were begun. */
  readonly barriers: StopBarrier[];
}

/** A cut that came too late for a host has kept nothing: all VMs run again, and it is made anew, planned further ahead. */
async function carryBarrierThrough(
  experiments: Experiments,
  { head, input, barriers }: Taking,
  { signal, report }: OperationContext,
): Promise<{ hosts: readonly BarrierHost[]; results: StopBarrierResults }> {
  report({ step: 'connect', message: 'connecting to the hosts' });
  const hosts = await experiments.connect(head.experiment);
  const externalFrames = experiments.externalFramesOf(head.experiment);
  const snapshot = { id: head.id, createdAt: head.createdAt, parent: head.parent, input };
  for (;;) {
    const cutsInVain = barriers.length * attemptsPlannedFurther;
    const options = { experiment: head.experiment, snapshot, hosts, externalFrames, cutsInVain, report };
    const barrier = new StopBarrier(options);
    barriers.push(barrier);
    try {
      await barrier.carryThrough(snapshotProcedure, signal);
      return { hosts, results: barrier.results };
    } catch (error) {
      const { code } = asStaghornError(error);
      if (code !== 'cut-too-late' || barriers.length === barriersMax || signal.aborted) throw error;
      report({ step: 'connect', message: 'the cut came too late for a host; it is planned anew' });
    }
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
    stoppedAt: null,
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
