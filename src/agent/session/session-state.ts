import { StaghornError } from '../../errors/index.ts';

/**
 * The states of a barrier on one host, and which call is allowed in which. `abort` is allowed in all.
 *
 * A restore: checked → stopping → loaded → stopped → resuming → resumed; ended.
 * armed → scheduled → stopping → stopped → resuming → resumed → storing → stored → committed; ended after abort or release.
 */
export type SessionState =
  | 'checked'
  | 'loaded'
  | 'armed'
  | 'scheduled'
  | 'stopping'
  | 'stopped'
  | 'resuming'
  | 'resumed'
  | 'storing'
  | 'stored'
  | 'ending'
  | 'ended';

export type SessionCall =
  | 'prepare'
  | 'flush'
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
  | 'commit';

const allowedIn: Readonly<Record<SessionCall, readonly SessionState[]>> = {
  prepare: ['checked'],
  flush: ['loaded'],
  probe: ['armed', 'loaded'],
  listen: ['armed', 'loaded'],
  schedule: ['armed'],
  // A cut that has begun cannot be given up.
  recall: ['armed', 'scheduled'],
  // It waits for a cut that was scheduled; asked for again, it gives the same answer.
  cut: ['armed', 'scheduled', 'stopping', 'stopped'],
  drain: ['stopped'],
  save: ['stopped'],
  resume: ['stopped'],
  // `settle` and `store` run beside each other.
  settle: ['resumed', 'storing', 'stored'],
  store: ['resumed'],
  commit: ['stored'],
};

export class StateError extends StaghornError {
  constructor(call: SessionCall, state: SessionState) {
    super(
      'wrong-state',
      `${call} is possible only when ${allowedIn[call].join(' or ')}, and this barrier is ${state}`,
    );
  }
}

/** @throws StateError; StaghornError 'cut-too-late' for a recall of a cut that has begun */
export function requireState(call: SessionCall, state: SessionState): void {
  if (call === 'recall' && (state === 'stopping' || state === 'stopped'))
    throw new StaghornError('cut-too-late', 'this host had begun the cut when it was recalled');
  if (!allowedIn[call].includes(state)) throw new StateError(call, state);
}
