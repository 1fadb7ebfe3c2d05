import { StaghornError, messageOf } from '../errors/index.ts';

export interface Deadline {
  readonly timeoutMs: number;
  /** The caller's own signal. */
  readonly signal?: AbortSignal | undefined;
  /** What the work is said to have failed of when the time is up. */
  readonly late: () => StaghornError;
}

/**
 * Runs work under a signal that aborts with `late()` when the time is up, or as 'cancelled' when the caller's signal
 * does. Its reason is always a StaghornError; the work has to heed it.
 */
export async function withDeadline<Result>(
  { timeoutMs, signal: outer, late }: Deadline,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  if (outer?.aborted) throw abortReason(outer);
  const controller = new AbortController();
  const onAbort = () => controller.abort(outer === undefined ? undefined : abortReason(outer));
  const timer = setTimeout(() => controller.abort(late()), timeoutMs);
  outer?.addEventListener('abort', onAbort, { once: true });
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener('abort', onAbort);
  }
}

/** Why a signal aborted, as a StaghornError: its own, or 'cancelled'. */
export function abortReason(signal: AbortSignal, what = 'it'): StaghornError {
  const reason: unknown = signal.reason;
  if (reason instanceof StaghornError) return reason;
  return new StaghornError('cancelled', `${what} was cancelled: ${messageOf(reason)}`, { cause: reason });
}

/** The promise's outcome, or the reason of the signal if that aborts first. */
export function unlessAborted<Result>(promise: Promise<Result>, signal: AbortSignal): Promise<Result> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortReason(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    if (signal.aborted) onAbort();
    void promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
