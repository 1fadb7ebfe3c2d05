import { connectUnixSocket, OvsdbDecoder, OvsdbError, OvsdbSession, Waiter } from '../ovsdb/index.ts';
import type { JsonValue, OvsdbMessage, Transport, WaitOptions } from '../ovsdb/index.ts';
import { UnixctlError } from './errors.ts';
import { controlSocketPath } from './socket-path.ts';

export const defaultConnectTimeoutMs = 5_000;
export const defaultCommandTimeoutMs = 10_000;
/** A MAC table of 8192 entries takes 300 KiB; a dump of many flows several MiB. */
export const defaultMaxAnswerBytes = 16 * 1024 * 1024;
export const maxPendingCommands = 64;

export interface UnixctlOptions {
  /** The largest answer accepted; 16 MiB by default. */
  readonly maxAnswerBytes?: number | undefined;
}

export interface UnixctlConnectOptions extends UnixctlOptions, WaitOptions {
  /** The control socket; that of the host's ovs-vswitchd by default. */
  readonly path?: string | undefined;
}

/**
 * A connection to the control socket of one of Open vSwitch's daemons: JSON-RPC 1.0 whose methods are commands, with
 * strings as parameters and a text as the result (lib/unixctl.c). Its messages look like those of RFC 7047, so codec,
 * session and socket are those of the OVSDB client.
 *
 * Invariants: one waiter for each command pending in the session; once closed, nothing is pending. It never
 * reconnects.
 */
export class UnixctlClient {
  readonly #transport: Transport;
  readonly #decoder: OvsdbDecoder;
  readonly #session = new OvsdbSession(maxPendingCommands);
  readonly #answers = new Map<string, Waiter<JsonValue>>();
  readonly #ended = new Waiter<void>({ what: 'the end of the connection' });
  #failure: OvsdbError | undefined;

  private constructor(transport: Transport, { maxAnswerBytes = defaultMaxAnswerBytes }: UnixctlOptions) {
    this.#transport = transport;
    this.#decoder = new OvsdbDecoder(maxAnswerBytes);
  }

  /** @throws UnixctlError 'connect-failed', 'timeout', 'aborted' */
  static async connect(options: UnixctlConnectOptions = {}): Promise<UnixctlClient> {
    const { signal, timeoutMs = defaultConnectTimeoutMs } = options;
    const path = options.path ?? (await controlSocketPath());
    try {
      return UnixctlClient.over(await connectUnixSocket(path, { signal, timeoutMs }), options);
    } catch (error) {
      throw asUnixctlError(error);
    }
  }

  /** The same over any connected transport, which the client owns from here on. */
  static over(transport: Transport, options: UnixctlOptions = {}): UnixctlClient {
    const client = new UnixctlClient(transport, options);
    transport.start({
      onData: (chunk) => {
        client.#receive(chunk);
      },
      onClosed: (cause) => {
        client.#end(cause);
      },
    });
    return client;
  }

  /**
   * Runs a command, such as `fdb/show br0`, and gives its text. Commands may be pending side by side.
   * @throws UnixctlError
   */
  async run(command: string, args: readonly string[] = [], options: WaitOptions = {}): Promise<string> {
    try {
      const result = await this.#request(command, [...args], options);
      if (result === null) return '';
      if (typeof result !== 'string') throw new UnixctlError('protocol', `${command}: the answer is no text`);
      return result;
    } catch (error) {
      throw asUnixctlError(error);
    }
  }

  /** Closes the connection; what is pending fails with 'disconnected'. May be called again. */
  async close(): Promise<void> {
    this.#transport.close();
    await this.#ended.promise;
  }

  #request(method: string, params: JsonValue[], options: WaitOptions): Promise<JsonValue> {
    const { signal, timeoutMs = defaultCommandTimeoutMs } = options;
    if (this.#failure !== undefined) throw this.#failure;
    // Aborted before anything was written: then nothing is.
    if (signal?.aborted === true)
      throw new OvsdbError('aborted', `${method}: aborted`, { cause: signal.reason });
    const { id, bytes } = this.#session.request(method, params);
    const onSettled = (): void => {
      this.#answers.delete(id);
      this.#session.forget(id);
    };
    const waiter = new Waiter<JsonValue>({ what: method, signal, timeoutMs, onSettled });
    this.#answers.set(id, waiter);
    this.#transport.write(bytes);
    return waiter.promise;
  }

  #receive(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    for (const message of this.#decoder.push(chunk)) {
      this.#accept(message);
      if (this.#failure !== undefined) return;
    }
    if (this.#decoder.failure !== undefined) this.#break(this.#decoder.failure);
  }

  #accept(message: OvsdbMessage): void {
    try {
      const occurrence = this.#session.receive(message);
      if (occurrence.kind === 'returned') this.#answers.get(occurrence.id)?.resolve(occurrence.result);
      else if (occurrence.kind === 'failed') this.#answers.get(occurrence.id)?.reject(occurrence.error);
      else if (occurrence.kind === 'asked') this.#transport.write(occurrence.bytes);
    } catch (error) {
      if (!(error instanceof OvsdbError)) throw error;
      this.#break(error);
    }
  }

  #break(failure: OvsdbError): void {
    this.#failure ??= failure;
    this.#transport.close();
  }

  #end(cause: Error | undefined): void {
    this.#failure ??= new OvsdbError('disconnected', 'the connection is closed', { cause });
    this.#session.close();
    for (const waiter of [...this.#answers.values()]) waiter.reject(this.#failure);
    this.#ended.resolve();
  }
}

function asUnixctlError(error: unknown): unknown {
  if (!(error instanceof OvsdbError)) return error;
  if (error.code === 'request-failed')
    return new UnixctlError('command-failed', error.message.trim(), { cause: error });
  // A session raises these two only for transactions and for echoes, of which there are none here.
  const code = error.code === 'operation-failed' || error.code === 'inactive' ? 'protocol' : error.code;
  return new UnixctlError(code, error.message, { cause: error });
}
