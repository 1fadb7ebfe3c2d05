import { asStaghornError, StaghornError } from '../../errors/index.ts';
import type { Operations, OperationStart } from '../operations.ts';
import { counted } from './transfer.ts';

/**
 * A stream that is listed as an operation while it is read: it can be cancelled, and ends as the stream ends. A
 * reader that leaves early has cancelled it.
 */
export async function* streamedBy(
  operations: Operations,
  about: Omit<OperationStart, 'work'>,
  open: (signal: AbortSignal) => AsyncIterable<Buffer>,
): AsyncGenerator<Buffer, void, undefined> {
  let end!: (error: unknown) => void;
  const ended = new Promise<unknown>((resolve) => (end = resolve));
  let begin!: (chunks: AsyncIterable<Buffer>) => void;
  const chunks = new Promise<AsyncIterable<Buffer>>((resolve) => (begin = resolve));
  operations.start({
    ...about,
    work: async ({ signal, report }) => {
      const message = `streaming ${about.snapshot}`;
      begin(counted(open(signal), (doneBytes) => report({ step: about.kind, message, doneBytes })));
      const error = await ended;
      if (error !== null) throw asStaghornError(error);
      return null;
    },
  });
  let error: unknown = new StaghornError('cancelled', 'its reader left');
  try {
    yield* await chunks;
    error = null;
  } catch (thrown) {
    error = thrown;
    throw thrown;
  } finally {
    end(error);
  }
}
