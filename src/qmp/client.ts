import type { QmpArguments, QmpCommandName, QmpResult } from './commands.ts';
import { QmpDecoder } from './decoder.ts';
import { QmpError } from './errors.ts';
import { EventLog } from './event-log.ts';
import type { EventWaitOptions, QmpEventListener } from './event-log.ts';
import type { QmpEvent, QmpEventName } from './events.ts';
import type { JsonValue } from './json.ts';
import type { QmpGreeting, QmpMessage } from './messages.ts';
import { QmpSession } from './session.ts';
import type { QmpOccurrence, QmpSessionRequest } from './session.ts';
import type { Transport } from './transport.ts';
import { connectUnixSocket } from './unix-socket.ts';
import { Waiter } from './waiter.ts';
import type { WaitOptions } from './waiter.ts';

export const defaultConnectTimeoutMs = 5_000;
export const defaultCommandTimeoutMs = 60_000;
export const defaultMaxMessageBytes = 16 * 1024 * 1024;
export const maxPendingCommands = 256;
export const rememberedEvents = 256;

export interface QmpOptions {
  readonly signal?: AbortSignal | undefined;
  /** For connecting, the greeting and the negotiation together; 5000 by default. */
  readonly timeoutMs?: number | undefined;
  /** The largest message accepted from QEMU; 16 MiB by default. */
  readonly maxMessageBytes?: number | undefined;
  /** Ask for out-of-band commands; look at `capabilities` for whether QEMU has them. */
  readonly oob?: boolean | undefined;
}

export interface QmpConnectOptions extends QmpOptions {
  /** The unix socket that QEMU listens on (`-qmp unix:PATH,server=on`). */
  readonly path: string;
}

export interface ExecuteOptions extends WaitOptions {
  /** Run it out of band; needs `oob` at `connect`. */
  readonly outOfBand?: boolean | undefined;
}

/** A command that has its id but is not written yet. */
export interface PreparedCommand<Result> {
  /** What is to be written onto `client.fd`, whole and in one piece. */
  readonly bytes: Buffer;
  /** Settles like the promise of `execute`; may be left alone without harm. */
  readonly reply: Promise<Result>;
  /** Stops waiting: `reply` fails with 'aborted'. Bytes written already are carried out all the same. */
  cancel(): void;
}

/**
 * A QMP connection, ready for commands.
 *
 * Invariants: one waiter for each command pending in the session; once closed, nothing is pending, nothing is
 * waited for, and `closed` is resolved. It never reconnects: QMP commands are not idempotent.
 */
export class QmpClient {
  /** Resolves when the connection is gone: with what broke it, or with undefined after `close`. Never rejects. */
  readonly closed: Promise<QmpError | undefined>;
  readonly #transport: Transport;
  readonly #decoder: QmpDecoder;
  readonly #session = new QmpSession(maxPendingCommands);
  readonly #events = new EventLog(rememberedEvents);
  readonly #replies = new Map<string, Waiter<JsonValue>>();
  readonly #greeted: Waiter<QmpGreeting>;
  readonly #ended = new Waiter<QmpError | undefined>({ what: 'the end of the connection' });
  #failure: QmpError | undefined;
  #closing = false;

  private constructor(transport: Transport, maxMessageBytes: number, greeted: Waiter<QmpGreeting>) {
    this.#transport = transport;
    this.#decoder = new QmpDecoder(maxMessageBytes);
    this.#greeted = greeted;
    this.closed = this.#ended.promise;
  }

  /**
   * Connects, waits for the greeting and negotiates.
   * @throws QmpError 'connect-failed', 'no-greeting' (another client probably holds the socket), 'timeout',
   * 'aborted', 'disconnected', 'oversize', 'protocol'.
   */
  static async connect(options: QmpConnectOptions): Promise<QmpClient> {
    const timeoutMs = options.timeoutMs ?? defaultConnectTimeoutMs;
    const startedMs = performance.now();
    const transport = await connectUnixSocket(options.path, { signal: options.signal, timeoutMs });
    const leftMs = Math.max(1, timeoutMs - (performance.now() - startedMs));
    return QmpClient.over(transport, { ...options, timeoutMs: leftMs }, options.path);
  }

  /** The same over any connected transport, which the client owns from here on. `name` is for error messages. */
  static async over(transport: Transport, options: QmpOptions = {}, name = 'QMP'): Promise<QmpClient> {
    const { signal, timeoutMs = defaultConnectTimeoutMs } = options;
    const startedMs = performance.now();
    const timeoutError = (): QmpError =>
      new QmpError(
        'no-greeting',
        `${name}: connected, but no greeting within ${Math.round(timeoutMs)} ms; ` +
          'another client probably holds this QMP socket (QEMU serves one at a time)',
      );
    const greeted = new Waiter<QmpGreeting>({ what: `${name}: greeting`, signal, timeoutMs, timeoutError });
    const client = new QmpClient(transport, options.maxMessageBytes ?? defaultMaxMessageBytes, greeted);
    transport.start({
      onData: (chunk) => {
        client.#receive(chunk);
      },
      onClosed: (cause) => {
        client.#end(cause);
      },
    });
    try {
      await greeted.promise;
      const leftMs = Math.max(1, timeoutMs - (performance.now() - startedMs));
      await client.#negotiate(options.oob === true ? ['oob'] : [], { signal, timeoutMs: leftMs });
    } catch (error) {
      await client.close();
      throw error;
    }
    return client;
  }

  /** QEMU's version and what it offered. */
  get greeting(): QmpGreeting {
    const greeting = this.#session.greeting;
    if (greeting === undefined) throw new Error('a client is not handed out before the greeting');
    return greeting;
  }

  /** What was enabled: ['oob'] or nothing. */
  get capabilities(): readonly string[] {
    return this.#session.capabilities;
  }

  /**
   * The socket's descriptor, for a thread that writes prepared commands itself. It belongs to this client: it must
   * not be used once the connection is closed, and it is non-blocking (a write may come short).
   * @throws QmpError 'disconnected' if there is none any more.
   */
  get fd(): number {
    const fd = this.#transport.fd;
    if (fd === undefined) throw this.#failure ?? new QmpError('disconnected', 'the connection is closed');
    return fd;
  }

  /** Whether the connection is gone: nothing can be asked any more. The socket may be so before it is told. */
  get isClosed(): boolean {
    return this.#failure !== undefined || this.#transport.fd === undefined;
  }

  /** Bytes of `execute` that the kernel has not taken yet; 0 before another thread may write on `fd`. */
  get unwrittenBytes(): number {
    return this.#transport.unwrittenBytes;
  }

  /**
   * Runs a command; without `timeoutMs` it may take 60 s.
   * @throws QmpError 'command-failed' (with QEMU's class and description in `failure`), 'timeout' or 'aborted' (it
   * may be carried out all the same), 'disconnected', 'too-many-pending', and what ended the connection.
   */
  async execute<N extends QmpCommandName>(
    command: N,
    args?: QmpArguments<N>,
    options: ExecuteOptions = {},
  ): Promise<QmpResult<N>> {
    const { signal, timeoutMs = defaultCommandTimeoutMs } = options;
    // Aborted before anything was written: then nothing is.
    if (signal?.aborted === true)
      throw new QmpError('aborted', `${command}: aborted`, { cause: signal.reason });
    const prepared = this.prepare(command, args, { ...options, timeoutMs });
    this.#transport.write(prepared.bytes);
    return prepared.reply;
  }

  /**
   * Registers a command and returns its bytes without writing them. Its time, if limited, runs from now.
   * @throws QmpError 'disconnected', 'too-many-pending', 'protocol' (out of band without that capability).
   */
  prepare<N extends QmpCommandName>(
    command: N,
    args?: QmpArguments<N>,
    options: ExecuteOptions = {},
  ): PreparedCommand<QmpResult<N>> {
    if (this.#failure !== undefined) throw this.#failure;
    const request = this.#session.request(command, args, { outOfBand: options.outOfBand === true });
    const waiter = this.#awaitReply(command, request, options);
    return {
      bytes: request.bytes,
      // The table of commands says what QEMU answers.
      reply: waiter.promise as Promise<QmpResult<N>>,
      cancel: () => {
        waiter.reject(new QmpError('aborted', `${command}: cancelled`));
      },
    };
  }

  /** Calls `listener` for each event from now on, in the order in which they come, until the returned function is called. */
  onEvent(listener: QmpEventListener): () => void {
    return this.#events.listen(listener);
  }

  /**
   * Waits for an event. It listens from the moment of the call, so it can be called before the command that leads
   * to the event is written. With `since`, the latest 256 events that came earlier are looked through first.
   * @throws QmpError 'timeout', 'aborted', 'disconnected', and what ended the connection.
   */
  waitEvent<N extends QmpEventName>(name: N, options: EventWaitOptions<N> = {}): Promise<QmpEvent<N>> {
    const wait = this.#events.wait(name, options);
    if (this.#failure !== undefined) this.#events.fail(this.#failure);
    return wait;
  }

  /**
   * From now on nothing is read, and what is written waits, until the returned function is called: while another thread
   * has `fd`, and to read would take the processor from QEMU.
   */
  leaveAlone(): () => void {
    return this.#transport.leaveAlone();
  }

  /** Closes the connection; what is pending fails with 'disconnected'. May be called again. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#transport.close();
    await this.#ended.promise;
  }

  async #negotiate(wanted: readonly string[], options: WaitOptions): Promise<void> {
    const request = this.#session.negotiate(wanted);
    const waiter = this.#awaitReply('qmp_capabilities', request, options);
    this.#transport.write(request.bytes);
    await waiter.promise;
  }

  #awaitReply(command: string, request: QmpSessionRequest, options: WaitOptions): Waiter<JsonValue> {
    const { signal, timeoutMs } = options;
    const waiter = new Waiter<JsonValue>({
      what: command,
      signal,
      timeoutMs,
      onSettled: () => {
        this.#replies.delete(request.id);
        this.#session.forget(request.id);
      },
    });
    if (!waiter.settled) this.#replies.set(request.id, waiter);
    return waiter;
  }

  #receive(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    for (const message of this.#decoder.push(chunk)) {
      const occurrence = this.#accept(message);
      if (occurrence === undefined) return;
      this.#dispatch(occurrence);
    }
    if (this.#decoder.failure !== undefined) this.#break(this.#decoder.failure);
  }

  /** What the message means, or undefined if the connection broke on it. */
  #accept(message: QmpMessage): QmpOccurrence | undefined {
    try {
      return this.#session.receive(message);
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      this.#break(error);
      return undefined;
    }
  }

  #dispatch(occurrence: QmpOccurrence): void {
    switch (occurrence.kind) {
      case 'greeted':
        this.#greeted.resolve(occurrence.greeting);
        return;
      case 'returned':
        this.#replies.get(occurrence.id)?.resolve(occurrence.value);
        return;
      case 'failed':
        this.#replies.get(occurrence.id)?.reject(occurrence.error);
        return;
      case 'event':
        this.#events.add(occurrence);
        return;
      case 'late-reply':
        return;
    }
  }

  #break(error: QmpError): void {
    this.#fail(error);
    this.#transport.close();
  }

  #fail(error: QmpError): void {
    this.#failure ??= error;
    this.#session.close();
    this.#greeted.reject(this.#failure);
    for (const waiter of [...this.#replies.values()]) waiter.reject(this.#failure);
    this.#events.fail(this.#failure);
  }

  #end(cause: Error | undefined): void {
    const byUs = this.#closing && this.#failure === undefined;
    const reason = byUs ? 'the connection was closed' : `QEMU closed the connection${detail(cause)}`;
    this.#fail(new QmpError('disconnected', reason, { cause }));
    this.#ended.resolve(byUs ? undefined : this.#failure);
  }
}

function detail(cause: Error | undefined): string {
  return cause === undefined ? '' : `: ${cause.message}`;
}
