/**
 * The procedures that touch time, as data: phases in order, each with the calls that go to every host at
 * once, and the deadline after which the whole is aborted (docs/protocol.md).
 */
export type BarrierCall =
  | 'arm'
  | 'probe'
  | 'listen'
  | 'schedule'
  | 'recall'
  | 'cut'
  | 'drain'
  | 'save'
  | 'resume'
  | 'settle'
  | 'store'
  | 'commit'
  | 'restoreCheck'
  | 'restorePrepare'
  | 'restoreDrain';

export interface Phase {
  readonly name: string;
  /** Sent to every host together; none: the phase waits to be released. */
  readonly calls: readonly BarrierCall[];
  readonly deadlineMs: number;
  /** If a host answers that it cannot in time: what every host does then, before the phase begins anew. */
  readonly recall?: BarrierCall;
  /** How often the phase begins at most; once if left out. */
  readonly attempts?: number;
}

export type Procedure = readonly Phase[];

const arm: Phase = { name: 'arm', calls: ['arm'], deadlineMs: 20_000 };
/** Which paths markers take. Of a snapshot while time still runs: it costs nothing but its latency. */
const probe: Phase = { name: 'probe', calls: ['probe'], deadlineMs: 10_000 };
const listen: Phase = { name: 'listen', calls: ['listen'], deadlineMs: 10_000 };
/** All hosts agree on an instant, or it is moved: each attempt is planned further ahead. */
const schedule: Phase = {
  name: 'schedule',
  calls: ['schedule'],
  deadlineMs: 10_000,
  recall: 'recall',
  attempts: 6,
};
/** The instant may be some seconds ahead, where messages are slow. */
const cut: Phase = { name: 'cut', calls: ['cut'], deadlineMs: 15_000 };
const resume: Phase = { name: 'resume', calls: ['resume'], deadlineMs: 5_000 };
/** The copy of RAM runs while the VMs do: it may take long, and progress shows that it lives. */
const storeDeadlineMs = 60 * 60_000;
/** A stop-copy happens while time is stopped: as long as it takes, within reason. */
const freezeDeadlineMs = 15 * 60_000;
const settleDeadlineMs = 60_000;
/** setTimeout's longest delay, about 24.8 days. */
const longestDelayMs = 2 ** 31 - 1;
const hold: Phase = { name: 'hold', calls: [], deadlineMs: longestDelayMs };

export const snapshotProcedure: Procedure = [
  arm,
  probe,
  listen,
  schedule,
  cut,
  { name: 'freeze', calls: ['drain', 'save'], deadlineMs: freezeDeadlineMs },
  resume,
  { name: 'store', calls: ['settle', 'store'], deadlineMs: storeDeadlineMs },
  { name: 'commit', calls: ['commit'], deadlineMs: 10 * 60_000 },
];

export const pauseProcedure: Procedure = [
  arm,
  probe,
  listen,
  schedule,
  cut,
  { name: 'drain', calls: ['drain'], deadlineMs: 60_000 },
  hold,
  resume,
  { name: 'settle', calls: ['settle'], deadlineMs: settleDeadlineMs },
];

const settle: Phase = { name: 'settle', calls: ['settle'], deadlineMs: settleDeadlineMs };
const check: Phase = { name: 'check', calls: ['restoreCheck'], deadlineMs: 15 * 60_000 };
const load: Phase = { name: 'load', calls: ['restorePrepare'], deadlineMs: 120_000 };
const flush: Phase = { name: 'flush', calls: ['restoreDrain'], deadlineMs: 60_000 };
/** A restore waits for others to come as far. */
const holdForOthers: Phase = { name: 'hold', calls: [], deadlineMs: 15 * 60_000 };

/**
 * Of a restore.
 * @param marked frames of another time line may be under way between hosts: markers follow them
 * @param paused everything is loaded, and time goes on when somebody says so
 */
export function restoreProcedure({ marked, paused }: { marked: boolean; paused: boolean }): Procedure {
  const marking = marked ? [probe, listen] : [];
  return [check, load, ...marking, flush, ...(paused ? [hold] : []), resume, settle];
}
export const forkProcedure: Procedure = [check, load, flush, holdForOthers, resume, settle];
/** Nothing is touched; the barrier is given up afterwards. */
export const dryRestoreProcedure: Procedure = [check];
