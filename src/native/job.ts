/** What the addon gives for work in a thread of its own (native/job.h). */
export interface NativeJob<Result> {
  readonly promise: Promise<Result>;
  cancel(): void;
  progress(): number;
}

/**
 * Runs a native job to its end. An aborted signal cancels it, and rejects with the signal's reason; a job that is
 * past the point where it can be cancelled still settles with its own result.
 */
export async function runJob<Result>(start: () => NativeJob<Result>, signal?: AbortSignal): Promise<Result> {
  signal?.throwIfAborted();
  const job = start();
  const cancel = () => job.cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    return await job.promise;
  } catch (error) {
    if (signal?.aborted && error instanceof Error && 'code' in error && error.code === 'ECANCELED') {
      throw signal.reason;
    }
    throw error;
  } finally {
    signal?.removeEventListener('abort', cancel);
  }
}
