import { CancellationTokenSource } from 'vscode-jsonrpc/node.js';
import { StaghornError, asStaghornError } from '../errors/index.ts';
import { abortReason } from './deadline.ts';
import { transportLimits } from './limits.ts';
import type {
  MethodName,
  MethodParams,
  MethodResult,
  NotificationName,
  NotificationParams,
  RpcContract,
} from './rpc-contract.ts';
import { fromResponseError } from './rpc-errors.ts';
import { RpcPeer, type RpcConnection } from './rpc-peer.ts';
import { decodeWire, encodeWire } from './rpc-schema.ts';
import { warmUp } from './rpc-warm-up.ts';

export interface CallOptions {
  /** How long the answer may take. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface RpcClient<C extends RpcContract> {
  /**
   * @throws StaghornError whatever the handler threw, with its code, context and the host's name;
   *   'deadline-exceeded', 'cancelled' (both cancel the handler too), 'protocol-violation', 'conflict' (too many
   *   calls at once), or the reason for which the connection ended
   */
  call<M extends MethodName<C>>(
    method: M,
    params: MethodParams<C, M>,
    options: CallOptions,
  ): Promise<MethodResult<C, M>>;
  /** Calls the handler for each notification of that name; the returned function ends that. One handler a name. */
  onNotification<N extends NotificationName<C>>(
    name: N,
    handler: (params: NotificationParams<C, N>) => void,
  ): () => void;
  /** Settles with the reason when the connection has ended. Never rejects. */
  readonly closed: Promise<StaghornError>;
  readonly closedSignal: AbortSignal;
  close(): void;
}

export function createRpcClient<C extends RpcContract>(contract: C, connection: RpcConnection): RpcClient<C> {
  return new ContractClient(contract, connection);
}

class ContractClient<C extends RpcContract> implements RpcClient<C> {
  readonly #contract: C;
  readonly #peer: RpcPeer;
  readonly #handlers = new Map<string, (params: unknown) => void>();
  #pendingCalls = 0;

  constructor(contract: C, connection: RpcConnection) {
    this.#contract = contract;
    warmUp(contract);
    this.#peer = new RpcPeer(connection);
    this.#peer.rpc.onNotification((name, wire) => this.#notified(name, wire));
    this.#peer.listen();
  }

  get closed(): Promise<StaghornError> {
    return this.#peer.closed;
  }

  get closedSignal(): AbortSignal {
    return this.#peer.closedSignal;
  }

  close(): void {
    this.#peer.close();
  }

  async call<M extends MethodName<C>>(
    method: M,
    params: MethodParams<C, M>,
    options: CallOptions,
  ): Promise<MethodResult<C, M>> {
    const schemas = this.#contract.methods[method];
    if (schemas === undefined) throw new TypeError(`the contract has no method ${method}`);
    try {
      const wire = encodeWire(schemas.params, params, `params of ${method}`);
      const answer = await this.#request(method, wire, options);
      return decodeWire(schemas.result, answer, `result of ${method}`) as MethodResult<C, M>;
    } catch (error) {
      throw this.#withHost(error);
    }
  }

  onNotification<N extends NotificationName<C>>(
    name: N,
    handler: (params: NotificationParams<C, N>) => void,
  ): () => void {
    if (this.#handlers.has(name)) throw new TypeError(`there is a handler for ${name} already`);
    this.#handlers.set(name, handler as (params: unknown) => void);
    return () => this.#handlers.delete(name);
  }

  /** Sends, and waits for the answer, the deadline, the caller's signal or the end, whichever comes first. */
  async #request(method: string, wire: unknown, { timeoutMs, signal }: CallOptions): Promise<unknown> {
    if (signal?.aborted) throw abortReason(signal, method);
    if (this.closedSignal.aborted) throw this.closedSignal.reason as StaghornError;
    const source = new CancellationTokenSource();
    const releases: (() => void)[] = [];
    try {
      return await new Promise((resolve, reject) => {
        const giveUp = (error: StaghornError) => {
          // An ending connection carries no cancel any more; the peer learns it from the end.
          if (!this.#peer.ending) source.cancel();
          reject(error);
        };
        const timer = setTimeout(() => giveUp(late(method, timeoutMs)), timeoutMs);
        const onAbort = () => signal && giveUp(abortReason(signal, method));
        const onClosed = () => reject(this.closedSignal.reason as StaghornError);
        signal?.addEventListener('abort', onAbort, { once: true });
        this.closedSignal.addEventListener('abort', onClosed, { once: true });
        releases.push(() => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', onAbort);
          this.closedSignal.removeEventListener('abort', onClosed);
        });
        this.#send(method, wire, source).then(resolve, reject);
      });
    } finally {
      for (const release of releases) release();
    }
  }

  // A call that was given up still counts until the peer has answered it: the peer still has it.
  async #send(method: string, wire: unknown, source: CancellationTokenSource): Promise<unknown> {
    if (this.#pendingCalls >= transportLimits.maxPendingCalls) {
      throw new StaghornError(
        'conflict',
        `${method}: ${this.#pendingCalls} calls already wait for an answer`,
      );
    }
    this.#pendingCalls += 1;
    try {
      return await this.#peer.rpc.sendRequest(method, wire, source.token);
    } catch (error) {
      // While the connection ends, what this call failed of is only a symptom: wait for the reason.
      if (this.#peer.ending) throw await this.#peer.closed;
      throw fromResponseError(error, method, this.#peer.host);
    } finally {
      this.#pendingCalls -= 1;
      source.dispose();
    }
  }

  #notified(name: string, wire: unknown): void {
    const schema = this.#contract.notifications[name]?.params;
    try {
      if (schema === undefined)
        throw new StaghornError('protocol-violation', `received unknown notification ${name}`);
      const params = decodeWire(schema, Array.isArray(wire) ? wire[0] : wire, `params of ${name}`);
      this.#handlers.get(name)?.(params);
    } catch (error) {
      this.#peer.close(this.#withHost(asStaghornError(error, 'internal', `handling ${name}: `)));
    }
  }

  #withHost(error: unknown): StaghornError {
    const { code, message, context, cause, stack } = asStaghornError(error);
    if (error instanceof StaghornError && context.host !== undefined) return error;
    const named = new StaghornError(code, message, { cause, context: { ...context, host: this.#peer.host } });
    if (stack !== undefined) named.stack = stack;
    return named;
  }
}

function late(method: string, timeoutMs: number): StaghornError {
  return new StaghornError('deadline-exceeded', `${method} was not answered within ${timeoutMs} ms`);
}
