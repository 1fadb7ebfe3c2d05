import { asStaghornError } from '../errors/index.ts';
import { toProblem } from '../protocol/problem.ts';
import type { OperationEvent } from '../protocol/resources.ts';

export const eventStreamMediaType = 'text/event-stream';

/** How long a client that lost the stream waits before it comes back. */
const RETRY_MS = 1000;

export interface EventStreamOptions {
  readonly heartbeatMs: number;
  readonly signal: AbortSignal;
}

/**
 * Events as text/event-stream (WHATWG HTML, section 9.2), with a comment whenever nothing came for
 * `heartbeatMs`. An error of the source is told as an event "error" with problem details, and ends the stream.
 */
export async function* eventStream(
  events: AsyncIterable<OperationEvent>,
  { heartbeatMs, signal }: EventStreamOptions,
): AsyncGenerator<string, void, undefined> {
  yield `retry: ${RETRY_MS}\n\n`;
  const source = events[Symbol.asyncIterator]();
  try {
    for (let pending = source.next(); ;) {
      const outcome = await settledWithin(pending, heartbeatMs, signal);
      if (outcome === 'aborted') return;
      if (outcome === 'silent') {
        yield ': still there\n\n';
        continue;
      }
      if (outcome.done === true) return;
      yield formatEvent(outcome.value);
      pending = source.next();
    }
  } catch (error) {
    if (!signal.aborted) yield `event: error\ndata: ${JSON.stringify(toProblem(asStaghornError(error)))}\n\n`;
  } finally {
    await source.return?.();
  }
}

function formatEvent(event: OperationEvent): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

function settledWithin<T>(
  pending: Promise<T>,
  waitMs: number,
  signal: AbortSignal,
): Promise<T | 'silent' | 'aborted'> {
  return new Promise((resolve, reject) => {
    const end = (settle: () => void) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
      settle();
    };
    const onAbort = () => {
      end(() => {
        resolve('aborted');
      });
    };
    const timer = setTimeout(() => {
      end(() => {
        resolve('silent');
      });
    }, waitMs);
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
    pending.then(
      (value) => {
        end(() => {
          resolve(value);
        });
      },
      (error: unknown) => {
        end(() => {
          reject(asStaghornError(error));
        });
      },
    );
  });
}
