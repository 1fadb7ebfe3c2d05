import { OvsdbDecoder } from './decoder.ts';
import { OvsdbError } from './errors.ts';
import { checkResults } from './failure.ts';
import { InactivityProbe } from './inactivity.ts';
import { isJsonObject } from './json.ts';
import type { JsonValue } from './json.ts';
import type { OvsdbMessage } from './messages.ts';
import { UpdateFeed } from './monitor.ts';
import type { OvsdbUpdateListener } from './monitor.ts';
import type {
  OvsdbMonitorRequest,
  OvsdbOperation,
  OvsdbResult,
  OvsdbSchema,
  OvsdbTableUpdates,
} from './operations.ts';
import { OvsdbSession } from './session.ts';
import type { OvsdbOccurrence } from './session.ts';
import type { Transport } from './transport.ts';
import { connectUnixSocket } from './unix-socket.ts';
import { Waiter } from './waiter.ts';
import type { WaitOptions } from './waiter.ts';

export const defaultConnectTimeoutMs = 5_000;
export const defaultRequestTimeoutMs = 30_000;
export const defaultInactivityProbeMs = 5_000;
export const defaultMaxMessageBytes = 64 * 1024 * 1024;
export const maxPendingRequests = 256;

export interface OvsdbOptions {
  /** The largest message accepted from the server; 64 MiB by default. */
  readonly maxMessageBytes?: number | undefined;
  /** After this much silence an echo is sent, and after as much again the connection is given up; 5000 by default, 0 for never. */
  readonly inactivityProbeMs?: number | undefined;
}

export interface OvsdbConnectOptions extends OvsdbOptions {
  /** The unix socket that ovsdb-server listens on, for example /var/run/openvswitch/db.sock. */
  readonly path: string;
  readonly signal?: AbortSignal | undefined;
  /** For connecting; 5000 by default. */
  readonly timeoutMs?: number | undefined;
}

export interface OvsdbMonitor {
  /** All rows that were asked for, as they were when the monitor began. */
  readonly initial: OvsdbTableUpdates;
  /** No more updates from this call on; resolves when the server has agreed. May be called again. */
  cancel(options?: WaitOptions): Promise<void>;
}

/**
 * An OVSDB connection (RFC 7047).
 *
 * Invariants: one waiter for each request pending in the session; once closed, nothing is pending, no monitor is
 * called and no timer runs. It never reconnects.
 */
export class OvsdbClient {
  /** Resolves when the connection is gone: with what broke it, or with undefined after `close`. Never rejects. */
  readonly closed: Promise<OvsdbError | undefined>;
  readonly #transport: Transport;
  readonly #decoder: OvsdbDecoder;
  readonly #session = new OvsdbSession(maxPendingRequests);
  readonly #replies = new Map<string, Waiter<JsonValue>>();
  readonly #monitors = new Map<string, UpdateFeed>();
  readonly #ended = new Waiter<OvsdbError | undefined>({ what: 'the end of the connection' });
  readonly #inactivity = new InactivityProbe();
  readonly #inactivityProbeMs: number;
  #probeTimer: NodeJS.Timeout | undefined;
  #lastMonitor = 0;
  #failure: OvsdbError | undefined;
  #closing = false;

  private constructor(transport: Transport, options: OvsdbOptions) {
    this.#transport = transport;
    this.#decoder = new OvsdbDecoder(options.maxMessageBytes ?? defaultMaxMessageBytes);
    this.#inactivityProbeMs = options.inactivityProbeMs ?? defaultInactivityProbeMs;
    this.closed = this.#ended.promise;
  }

  /** @throws OvsdbError 'connect-failed', 'timeout', 'aborted'. */
  static async connect(options: OvsdbConnectOptions): Promise<OvsdbClient> {
    const { path, signal, timeoutMs = defaultConnectTimeoutMs } = options;
    return OvsdbClient.over(await connectUnixSocket(path, { signal, timeoutMs }), options);
  }

  /** The same over any connected transport, which the client owns from here on. */
  static over(transport: Transport, options: OvsdbOptions = {}): OvsdbClient {
    const client = new OvsdbClient(transport, options);
    client.#armProbe();
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

  /** The databases that the server has (RFC 7047, section 4.1.1). Throws as `transact`, but for 'operation-failed'. */
  async listDbs(options: WaitOptions = {}): Promise<string[]> {
    const names = await this.#request('list_dbs', [], options);
    if (!Array.isArray(names) || !names.every((name) => typeof name === 'string')) {
      throw new OvsdbError('protocol', 'list_dbs: the reply is not a list of names');
    }
    return names;
  }

  /** RFC 7047, section 4.1.2. Throws as `transact`, but for 'operation-failed'. */
  async getSchema(database: string, options: WaitOptions = {}): Promise<OvsdbSchema> {
    const schema = await this.#request('get_schema', [database], options);
    if (!isJsonObject(schema) || !isJsonObject(schema['tables'])) {
      throw new OvsdbError('protocol', 'get_schema: the reply is not a schema');
    }
    return schema as unknown as OvsdbSchema;
  }

  /**
   * Runs the operations as one transaction (RFC 7047, section 4.1.3): all of them, or none.
   * @throws OvsdbError 'operation-failed' (which, and the server's text, in `failure`), 'request-failed' (unknown
   * database), 'timeout' or 'aborted' (it may be carried out all the same), 'disconnected', 'inactive',
   * 'too-many-pending', and what else ended the connection.
   */
  async transact(
    database: string,
    operations: readonly OvsdbOperation[],
    options: WaitOptions = {},
  ): Promise<OvsdbResult[]> {
    // The types of operations are JSON by construction.
    const params = [database, ...operations] as unknown as JsonValue[];
    const result = await this.#request('transact', params, options);
    return checkResults(result, operations) as unknown as OvsdbResult[];
  }

  /**
   * Asks for the tables' rows and every change to them (RFC 7047, section 4.1.5). `onUpdate` is never called before
   * the returned promise has been seen to resolve. Throws as `transact`, but for 'operation-failed'.
   */
  async monitor(
    database: string,
    requests: Readonly<Record<string, OvsdbMonitorRequest | readonly OvsdbMonitorRequest[]>>,
    onUpdate: OvsdbUpdateListener,
    options: WaitOptions = {},
  ): Promise<OvsdbMonitor> {
    this.#lastMonitor += 1;
    const monitorId = `monitor-${this.#lastMonitor}`;
    const feed = new UpdateFeed(onUpdate);
    this.#monitors.set(monitorId, feed);
    try {
      const params = [database, monitorId, requests] as unknown as JsonValue[];
      const initial = await this.#request('monitor', params, options);
      if (!isJsonObject(initial)) throw new OvsdbError('protocol', 'monitor: the reply holds no tables');
      feed.open();
      const cancel = (how: WaitOptions = {}): Promise<void> => this.#cancel(monitorId, how);
      return { initial: initial as unknown as OvsdbTableUpdates, cancel };
    } catch (error) {
      // The server may have taken it on although we gave up: its updates then find no feed and are dropped.
      this.#monitors.delete(monitorId);
      feed.close();
      throw error;
    }
  }

  /** Asks for a sign of life (RFC 7047, section 4.1.11). Throws as `transact`, but for 'operation-failed'. */
  async echo(options: WaitOptions = {}): Promise<void> {
    await this.#request('echo', [], options);
  }

  /** Closes the connection; what is pending fails with 'disconnected'. May be called again. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#transport.close();
    await this.#ended.promise;
  }

  async #request(method: string, params: JsonValue[], options: WaitOptions): Promise<JsonValue> {
    const { signal, timeoutMs = defaultRequestTimeoutMs } = options;
    if (this.#failure !== undefined) throw this.#failure;
    // Aborted before anything was written: then nothing is.
    if (signal?.aborted === true) {
      throw new OvsdbError('aborted', `${method}: aborted`, { cause: signal.reason });
    }
    const { id, bytes } = this.#session.request(method, params);
    const onSettled = (): void => {
      this.#replies.delete(id);
      this.#session.forget(id);
    };
    const waiter = new Waiter<JsonValue>({ what: method, signal, timeoutMs, onSettled });
    this.#replies.set(id, waiter);
    this.#transport.write(bytes);
    return waiter.promise;
  }

  async #cancel(monitorId: string, options: WaitOptions): Promise<void> {
    const feed = this.#monitors.get(monitorId);
    if (feed === undefined) return;
    feed.close();
    this.#monitors.delete(monitorId);
    await this.#request('monitor_cancel', [monitorId], options);
  }

  #receive(chunk: Uint8Array): void {
    if (this.#failure !== undefined) return;
    this.#inactivity.heard();
    for (const message of this.#decoder.push(chunk)) {
      const occurrence = this.#accept(message);
      if (occurrence === undefined) return;
      this.#dispatch(occurrence);
    }
    if (this.#decoder.failure !== undefined) this.#break(this.#decoder.failure);
  }

  /** What the message means, or undefined if the connection broke on it. */
  #accept(message: OvsdbMessage): OvsdbOccurrence | undefined {
    try {
      return this.#session.receive(message);
    } catch (error) {
      if (!(error instanceof OvsdbError)) throw error;
      this.#break(error);
      return undefined;
    }
  }

  #dispatch(occurrence: OvsdbOccurrence): void {
    switch (occurrence.kind) {
      case 'returned':
        this.#replies.get(occurrence.id)?.resolve(occurrence.result);
        return;
      case 'failed':
        this.#replies.get(occurrence.id)?.reject(occurrence.error);
        return;
      case 'asked':
        this.#transport.write(occurrence.bytes);
        return;
      case 'update':
        if (this.#monitors.get(occurrence.monitorId)?.receive(occurrence.updates) === false) {
          this.#break(new OvsdbError('protocol', 'too many updates before the reply to monitor'));
        }
        return;
      case 'notified':
      case 'late-reply':
        return;
    }
  }

  #armProbe(): void {
    if (this.#inactivityProbeMs <= 0) return;
    this.#probeTimer = setTimeout(() => {
      this.#probe();
    }, this.#inactivityProbeMs);
  }

  #probe(): void {
    const verdict = this.#inactivity.elapsed();
    if (verdict === 'dead') {
      const silentMs = 2 * this.#inactivityProbeMs;
      this.#break(new OvsdbError('inactive', `the server has been silent for ${silentMs} ms`));
      return;
    }
    // What it answers does not matter: any byte counts.
    if (verdict === 'probe') this.echo({ timeoutMs: 2 * this.#inactivityProbeMs }).catch(() => undefined);
    this.#armProbe();
  }

  #break(error: OvsdbError): void {
    this.#fail(error);
    this.#transport.close();
  }

  #fail(error: OvsdbError): void {
    this.#failure ??= error;
    clearTimeout(this.#probeTimer);
    this.#session.close();
    for (const feed of this.#monitors.values()) feed.close();
    this.#monitors.clear();
    for (const waiter of [...this.#replies.values()]) waiter.reject(this.#failure);
  }

  #end(cause: Error | undefined): void {
    const byUs = this.#closing && this.#failure === undefined;
    const detail = cause === undefined ? '' : `: ${cause.message}`;
    const reason = byUs ? 'the connection was closed' : `the server closed the connection${detail}`;
    this.#fail(new OvsdbError('disconnected', reason, { cause }));
    this.#ended.resolve(byUs ? undefined : this.#failure);
  }
}
