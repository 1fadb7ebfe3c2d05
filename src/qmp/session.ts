import { encodeCommand } from './encode-command.ts';
import { QmpError } from './errors.ts';
import type { JsonObject, JsonValue } from './json.ts';
import type { QmpGreeting, QmpMessage } from './messages.ts';

/** greeting → negotiating → ready; any → closed. */
export type QmpSessionState = 'greeting' | 'negotiating' | 'ready' | 'closed';

/** What a received message means to this side. */
export type QmpOccurrence =
  | { readonly kind: 'greeted'; readonly greeting: QmpGreeting }
  | { readonly kind: 'returned'; readonly id: string; readonly value: JsonValue }
  | { readonly kind: 'failed'; readonly id: string; readonly error: QmpError }
  | { readonly kind: 'event'; readonly name: string; readonly data: JsonObject; readonly timestampNs: bigint }
  /** The answer to a command that was given up (timed out, aborted, cancelled). */
  | { readonly kind: 'late-reply'; readonly id: string };

export interface QmpSessionRequest {
  readonly id: string;
  readonly bytes: Buffer;
}

/**
 * One QMP connection without its socket: numbers commands and matches replies to them.
 *
 * Invariants: an id is given out once; `pending` holds exactly the ids that were given out and neither answered
 * nor forgotten, at most `maxPending` of them; nothing is encoded or accepted once closed.
 */
export class QmpSession {
  readonly #maxPending: number;
  readonly #pending = new Map<string, string>();
  #state: QmpSessionState = 'greeting';
  #greeting: QmpGreeting | undefined;
  #capabilities: readonly string[] = [];
  #negotiationId: string | undefined;
  #lastId = 0;

  /** @param maxPending how many commands may wait for their replies at a time. */
  constructor(maxPending: number) {
    this.#maxPending = maxPending;
  }

  get state(): QmpSessionState {
    return this.#state;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  get greeting(): QmpGreeting | undefined {
    return this.#greeting;
  }

  /** What was enabled in the negotiation. */
  get capabilities(): readonly string[] {
    return this.#capabilities;
  }

  /**
   * The command that ends the negotiation, with those of `wanted` that QEMU offers.
   * @throws QmpError 'protocol' before the greeting or a second time.
   */
  negotiate(wanted: readonly string[]): QmpSessionRequest {
    const greeting = this.#greeting;
    if (greeting === undefined || this.#negotiationId !== undefined) {
      throw new QmpError('protocol', `cannot negotiate in state ${this.#state}`);
    }
    this.#capabilities = wanted.filter((name) => greeting.capabilities.includes(name));
    const request = this.#register('qmp_capabilities', { enable: this.#capabilities }, false);
    this.#negotiationId = request.id;
    return request;
  }

  /**
   * Numbers a command and returns its bytes, which the caller may write at once, later, or never (then `forget`).
   * @throws QmpError 'disconnected' once closed, 'protocol' before the negotiation has ended or for an
   * out-of-band command without that capability, 'too-many-pending'.
   */
  request(command: string, args?: object, options: { outOfBand?: boolean } = {}): QmpSessionRequest {
    if (this.#state === 'closed') throw new QmpError('disconnected', `${command}: the connection is closed`);
    if (this.#state !== 'ready')
      throw new QmpError('protocol', `${command}: not possible before negotiation`);
    const outOfBand = options.outOfBand === true;
    if (outOfBand && !this.#capabilities.includes('oob')) {
      throw new QmpError('protocol', `${command}: the capability 'oob' was not negotiated`);
    }
    return this.#register(command, args, outOfBand);
  }

  /** Gives a command up: its reply, should it come, is a late one. */
  forget(id: string): void {
    this.#pending.delete(id);
  }

  /** @throws QmpError 'protocol' if the message is out of place, after which the connection is beyond use. */
  receive(message: QmpMessage): QmpOccurrence {
    if (this.#state === 'closed') throw new QmpError('disconnected', 'a message came after the end');
    if (message.kind === 'greeting') return this.#greet(message.greeting);
    if (this.#state === 'greeting') {
      throw new QmpError('protocol', `the first message is no greeting but: ${message.kind}`);
    }
    if (message.kind === 'event') return message;
    return this.#settle(message);
  }

  /** Ends the session; returns the ids that were still pending. */
  close(): string[] {
    const abandoned = [...this.#pending.keys()];
    this.#pending.clear();
    this.#state = 'closed';
    return abandoned;
  }

  #register(command: string, args: object | undefined, outOfBand: boolean): QmpSessionRequest {
    if (this.#pending.size >= this.#maxPending) {
      throw new QmpError('too-many-pending', `${command}: ${this.#maxPending} commands are pending already`);
    }
    this.#lastId += 1;
    const id = String(this.#lastId);
    const bytes = encodeCommand({ id, command, args, outOfBand });
    this.#pending.set(id, command);
    return { id, bytes };
  }

  #greet(greeting: QmpGreeting): QmpOccurrence {
    if (this.#state !== 'greeting') throw new QmpError('protocol', 'QEMU greeted twice');
    this.#greeting = greeting;
    this.#state = 'negotiating';
    return { kind: 'greeted', greeting };
  }

  #settle(message: Extract<QmpMessage, { kind: 'return' | 'error' }>): QmpOccurrence {
    const { id } = message;
    if (typeof id !== 'string') {
      // QEMU leaves the id out when it could not read the command at all: what was written is not what was meant.
      const detail = message.kind === 'error' ? message.description : 'a return';
      throw new QmpError('protocol', `a reply names no command of ours: ${detail}`);
    }
    const command = this.#pending.get(id);
    if (command === undefined) return { kind: 'late-reply', id };
    this.#pending.delete(id);
    if (message.kind === 'return') {
      if (id === this.#negotiationId) this.#state = 'ready';
      return { kind: 'returned', id, value: message.value };
    }
    const { errorClass, description } = message;
    const failure = { command, errorClass, description };
    return {
      kind: 'failed',
      id,
      error: new QmpError('command-failed', `${command}: ${description}`, { failure }),
    };
  }
}
