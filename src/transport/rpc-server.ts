import { ErrorCodes, ResponseError, type CancellationToken } from 'vscode-jsonrpc/node.js';
import { StaghornError } from '../errors/index.ts';
import { transportLimits } from './limits.ts';
import type {
  HandlerContext,
  NotificationName,
  NotificationParams,
  RpcContract,
  RpcHandlers,
} from './rpc-contract.ts';
import { toResponseError } from './rpc-errors.ts';
import { RpcPeer, type RpcConnection } from './rpc-peer.ts';
import { decodeWire, encodeWire } from './rpc-schema.ts';
import { warmUp } from './rpc-warm-up.ts';

export interface RpcServer<C extends RpcContract> {
  /**
   * Resolves when the bytes are handed to the stream.
   * @throws StaghornError 'protocol-violation' if the params do not fit or are too large, or the reason for which
   *   the connection ended
   */
  notify<N extends NotificationName<C>>(name: N, params: NotificationParams<C, N>): Promise<void>;
  /** Settles with the reason when the connection has ended. Never rejects. */
  readonly closed: Promise<StaghornError>;
  readonly closedSignal: AbortSignal;
  close(): void;
}

type AnyHandler = (params: unknown, context: HandlerContext) => unknown;

/** Answers the calls of one client until the connection ends. */
export function serveRpc<C extends RpcContract>(
  contract: C,
  handlers: RpcHandlers<C>,
  connection: RpcConnection,
): RpcServer<C> {
  warmUp(contract);
  const peer = new RpcPeer(connection);
  const dispatcher = new Dispatcher(contract, handlers as Readonly<Record<string, AnyHandler>>, peer);
  // A star handler sees parameters as they came; each is one value, sent by position where it is not an object.
  peer.rpc.onRequest((method, wire: unknown, token) =>
    dispatcher.answer(method, Array.isArray(wire) ? wire[0] : wire, token),
  );
  peer.listen();
  return {
    notify: (name, params) => notify(contract, peer, name, params),
    closed: peer.closed,
    closedSignal: peer.closedSignal,
    close: () => peer.close(),
  };
}

class Dispatcher {
  readonly #contract: RpcContract;
  readonly #handlers: Readonly<Record<string, AnyHandler>>;
  readonly #peer: RpcPeer;
  #running = 0;

  constructor(contract: RpcContract, handlers: Readonly<Record<string, AnyHandler>>, peer: RpcPeer) {
    this.#contract = contract;
    this.#handlers = handlers;
    this.#peer = peer;
  }

  async answer(method: string, wire: unknown, token: CancellationToken): Promise<unknown> {
    const schemas = Object.hasOwn(this.#contract.methods, method)
      ? this.#contract.methods[method]
      : undefined;
    const handler = this.#handlers[method];
    if (schemas === undefined || handler === undefined) {
      return new ResponseError(ErrorCodes.MethodNotFound, 'the peer has no such method');
    }
    if (this.#running >= transportLimits.maxPendingCalls) {
      return toResponseError(new StaghornError('conflict', `${method}: ${this.#running} calls already run`));
    }
    this.#running += 1;
    try {
      const params = decodeWire(schemas.params, wire, `params of ${method}`);
      const result = await this.#run(handler, params, method, token);
      return encodeWire(schemas.result, result, `result of ${method}`) ?? null;
    } catch (error) {
      return toResponseError(error);
    } finally {
      this.#running -= 1;
    }
  }

  async #run(
    handler: AnyHandler,
    params: unknown,
    method: string,
    token: CancellationToken,
  ): Promise<unknown> {
    const stop = new AbortController();
    const cancelled = () => new StaghornError('cancelled', `${method} was cancelled by the caller`);
    // The cancel overtakes a request that is still queued: such a call does not begin.
    if (token.isCancellationRequested) throw cancelled();
    const onClosed = () => stop.abort(this.#peer.closedSignal.reason);
    const cancellation = token.onCancellationRequested(() => stop.abort(cancelled()));
    this.#peer.closedSignal.addEventListener('abort', onClosed, { once: true });
    try {
      return await handler(params, { signal: stop.signal });
    } finally {
      cancellation.dispose();
      this.#peer.closedSignal.removeEventListener('abort', onClosed);
    }
  }
}

async function notify(contract: RpcContract, peer: RpcPeer, name: string, params: unknown): Promise<void> {
  const schema = contract.notifications[name]?.params;
  if (schema === undefined) throw new TypeError(`the contract has no notification ${name}`);
  const wire = encodeWire(schema, params, `params of ${name}`);
  if (peer.closedSignal.aborted) throw peer.closedSignal.reason as StaghornError;
  try {
    await peer.rpc.sendNotification(name, wire);
  } catch (error) {
    if (peer.ending) throw await peer.closed;
    throw error;
  }
}
