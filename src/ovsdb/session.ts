import { OvsdbError } from './errors.ts';
import { failureOf } from './failure.ts';
import { isJsonObject } from './json.ts';
import type { JsonValue } from './json.ts';
import { encodeMessage } from './messages.ts';
import type { OvsdbMessage } from './messages.ts';
import type { OvsdbTableUpdates } from './operations.ts';

/** What a received message means to this side. */
export type OvsdbOccurrence =
  | { readonly kind: 'returned'; readonly id: string; readonly result: JsonValue }
  | { readonly kind: 'failed'; readonly id: string; readonly error: OvsdbError }
  /** The server asked something, and `bytes` is the answer to be written. */
  | { readonly kind: 'asked'; readonly bytes: Buffer }
  /** A notification of a monitor that this side made (RFC 7047, section 4.1.6). */
  | { readonly kind: 'update'; readonly monitorId: string; readonly updates: OvsdbTableUpdates }
  /** Any other notification, for example 'locked'. */
  | { readonly kind: 'notified'; readonly method: string; readonly params: JsonValue[] }
  /** The answer to a request that was given up. */
  | { readonly kind: 'late-reply'; readonly id: string };

export interface OvsdbSessionRequest {
  readonly id: string;
  readonly bytes: Buffer;
}

/**
 * One OVSDB connection without its socket: numbers requests, matches replies, answers echoes.
 *
 * Invariants: an id is given out once; `pending` holds exactly the ids that were given out and neither answered
 * nor forgotten, at most `maxPending` of them; nothing is encoded or accepted once closed.
 */
export class OvsdbSession {
  readonly #maxPending: number;
  readonly #pending = new Map<string, string>();
  #closed = false;
  #lastId = 0;

  /** @param maxPending how many requests may wait for their replies at a time. */
  constructor(maxPending: number) {
    this.#maxPending = maxPending;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  /**
   * Numbers a request and returns its bytes.
   * @throws OvsdbError 'disconnected' once closed, 'too-many-pending'.
   */
  request(method: string, params: JsonValue[]): OvsdbSessionRequest {
    if (this.#closed) throw new OvsdbError('disconnected', `${method}: the connection is closed`);
    if (this.#pending.size >= this.#maxPending) {
      throw new OvsdbError('too-many-pending', `${method}: ${this.#maxPending} requests are pending already`);
    }
    this.#lastId += 1;
    const id = String(this.#lastId);
    const bytes = encodeMessage({ kind: 'request', method, params, id });
    this.#pending.set(id, method);
    return { id, bytes };
  }

  /** Gives a request up: its reply, should it come, is a late one. */
  forget(id: string): void {
    this.#pending.delete(id);
  }

  /** @throws OvsdbError 'protocol' if the message is out of place, after which the connection is beyond use. */
  receive(message: OvsdbMessage): OvsdbOccurrence {
    if (this.#closed) throw new OvsdbError('disconnected', 'a message came after the end');
    switch (message.kind) {
      case 'request':
        return { kind: 'asked', bytes: encodeMessage(answerTo(message)) };
      case 'notification':
        return notificationOf(message);
      case 'result':
      case 'error':
        return this.#settle(message);
    }
  }

  /** Ends the session; returns the ids that were still pending. */
  close(): string[] {
    const abandoned = [...this.#pending.keys()];
    this.#pending.clear();
    this.#closed = true;
    return abandoned;
  }

  #settle(message: Extract<OvsdbMessage, { kind: 'result' | 'error' }>): OvsdbOccurrence {
    const { id } = message;
    if (typeof id !== 'string') {
      throw new OvsdbError('protocol', `a reply names no request of ours: ${JSON.stringify(id)}`);
    }
    const method = this.#pending.get(id);
    if (method === undefined) return { kind: 'late-reply', id };
    this.#pending.delete(id);
    if (message.kind === 'result') return { kind: 'returned', id, result: message.result };
    const failure = failureOf(message.error);
    const text = `${method}: ${failure.error}${failure.details === undefined ? '' : ` (${failure.details})`}`;
    return { kind: 'failed', id, error: new OvsdbError('request-failed', text, { failure }) };
  }
}

/** Each side must answer an echo with its parameters (RFC 7047, section 4.1.11); we offer nothing else. */
function answerTo(request: Extract<OvsdbMessage, { kind: 'request' }>): OvsdbMessage {
  if (request.method === 'echo') return { kind: 'result', id: request.id, result: request.params };
  return { kind: 'error', id: request.id, error: 'unknown method' };
}

function notificationOf(message: Extract<OvsdbMessage, { kind: 'notification' }>): OvsdbOccurrence {
  const { method, params } = message;
  const [monitorId, updates] = params;
  if (method !== 'update') return { kind: 'notified', method, params };
  if (typeof monitorId !== 'string' || !isJsonObject(updates)) {
    throw new OvsdbError('protocol', 'an update names no monitor of ours, or holds no tables');
  }
  // The server holds its rows to the schema; here they only pass through.
  return { kind: 'update', monitorId, updates: updates as unknown as OvsdbTableUpdates };
}
