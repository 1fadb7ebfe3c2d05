import { randomUUID } from 'node:crypto';
import type { Message } from 'vscode-jsonrpc/node.js';
import { StaghornError } from '../errors/index.ts';
import { BrokerConnection } from './amqp-connection.ts';
import type { Envelope, EnvelopeKind } from './amqp-envelope.ts';
import { Outbox } from './amqp-outbox.ts';
import { RequestIds } from './amqp-request-ids.ts';
import { BrokerSession, piecesOf } from './amqp-session.ts';
import type { BrokerSettings } from './amqp-settings.ts';
import { unlessAborted, withDeadline } from './deadline.ts';
import { transportLimits } from './limits.ts';
import { createRpcClient, type RpcClient } from './rpc-client.ts';
import type { RpcContract } from './rpc-contract.ts';
import { FrameDecoder, encodeFrame } from './rpc-framing.ts';
import type { RpcConnection } from './rpc-peer.ts';

interface Opened {
  readonly session: BrokerSession;
  readonly agent: string;
  readonly slot: number;
  readonly epoch: number;
  readonly replies: FrameDecoder;
  readonly ids: RequestIds;
  readonly accepted: () => void;
}

const sessionKey = (agent: string, slot: number) => `${slot} ${agent}`;
const nothing: Buffer = Buffer.alloc(0);

/** A controller's side of one connection to the broker: the sessions with agents, and what they share. */
export class ControllerAtBroker {
  readonly connection: BrokerConnection;
  readonly #sessions = new Map<string, Opened>();
  readonly #outbox: Outbox;
  readonly #beat: NodeJS.Timeout;

  private constructor(connection: BrokerConnection) {
    this.connection = connection;
    this.#outbox = new Outbox(({ slot, targets, message }) => {
      const frame = encodeFrame(message, transportLimits.maxMessageBytes);
      for (const body of piecesOf(frame)) this.#publish(targets, 'bytes', slot, body);
    });
    this.#beat = setInterval(() => this.#beatAll(), transportLimits.brokerBeatMs);
    void connection.closed.then((reason) => {
      clearInterval(this.#beat);
      for (const opened of [...this.#sessions.values()]) this.#end(opened, reason);
    });
  }

  /** @throws StaghornError as BrokerConnection.open */
  static async connect(settings: BrokerSettings): Promise<ControllerAtBroker> {
    // The connection exists before what it calls; nothing comes before somebody was asked.
    const connection = await BrokerConnection.open({
      settings,
      role: 'controllers',
      name: randomUUID(),
      onEnvelope: (envelope) => controller.receive(envelope),
      onReturned: (target, slot) => controller.returned(target, slot),
    });
    const controller = new ControllerAtBroker(connection);
    return controller;
  }

  /**
   * Asks an agent for a session. @throws StaghornError 'agent-lost' if it is not connected, or the reason of the signal
   */
  async open(agent: string, signal: AbortSignal, maxMessageBytes?: number): Promise<RpcConnection> {
    const slot = this.#freeSlot(agent);
    const epoch = this.#publish([agent], 'open', slot);
    let accepted: () => void = () => undefined;
    const acceptance = new Promise<void>((resolve) => (accepted = resolve));
    const ids = new RequestIds();
    const written = new FrameDecoder(transportLimits.maxMessageBytes);
    const session = new BrokerSession({
      host: agent,
      afterNumber: 0,
      maxMessageBytes,
      send: (chunk) => {
        for (const message of written.push(chunk)) {
          ids.outgoing(message as Message, (wire) => this.#outbox.add(agent, slot, wire));
        }
        return this.connection.drained;
      },
      onFinished: () => this.#finish(opened),
    });
    const replies = new FrameDecoder(transportLimits.maxMessageBytes);
    const opened: Opened = { session, agent, slot, epoch, replies, ids, accepted };
    this.#sessions.set(sessionKey(agent, slot), opened);
    const refused = session.ended.then((reason) => Promise.reject(reason));
    try {
      await unlessAborted(Promise.race([acceptance, refused]), signal);
      return session;
    } catch (error) {
      this.#finish(opened);
      throw error;
    }
  }

  receive(envelope: Envelope): void {
    const { kind, from, slot, epoch, body } = envelope;
    const opened = this.#sessions.get(sessionKey(from, slot));
    // An agent without a session of that name tells so with the number of what it got.
    if (opened === undefined || epoch < opened.epoch || !opened.session.admits(envelope)) return;
    if (kind === 'end') this.#end(opened, opened.session.lost(body.toString()));
    else if (epoch !== opened.epoch) return;
    else if (kind === 'accept') opened.accepted();
    else if (kind === 'bytes') this.#reply(opened, body);
  }

  returned(agent: string, slot: number): void {
    const opened = this.#sessions.get(sessionKey(agent, slot));
    if (opened !== undefined) this.#end(opened, opened.session.lost('is not connected to the broker'));
  }

  #reply(opened: Opened, body: Buffer): void {
    const { session, replies, ids } = opened;
    try {
      for (const received of replies.push(body)) {
        const message = ids.incoming(received as Message);
        if (message !== null) session.receive(encodeFrame(message, transportLimits.maxMessageBytes));
      }
    } catch (error) {
      this.#end(opened, error as StaghornError);
    }
  }

  #finish(opened: Opened): void {
    if (this.#forget(opened)) this.#publish([opened.agent], 'end', opened.slot);
  }

  #end(opened: Opened, reason: StaghornError): void {
    this.#forget(opened);
    opened.session.end(reason);
  }

  #forget({ agent, slot, session }: Opened): boolean {
    const key = sessionKey(agent, slot);
    return this.#sessions.get(key)?.session === session && this.#sessions.delete(key);
  }

  #freeSlot(agent: string): number {
    for (let slot = 0; ; slot++) if (!this.#sessions.has(sessionKey(agent, slot))) return slot;
  }

  #publish(targets: readonly string[], kind: EnvelopeKind, slot: number, body = nothing): number {
    return this.connection.publish(targets, { kind, slot, epoch: 0, body });
  }

  // One message to each, because one that names many comes back only if nobody at all gets it.
  #beatAll(): void {
    for (const opened of [...this.#sessions.values()]) {
      opened.session.endIfSilent();
      this.#publish([opened.agent], 'beat', opened.slot);
    }
  }
}

export interface ConnectAtBrokerOptions {
  /** For the agent to come and answer; default 10 000: as long as it may wait before it tries again to connect. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly maxMessageBytes?: number | undefined;
}

const defaultTimeoutMs = 10_000;
const retryMs = 250;

/** The agents that are connected to a site's broker. Connects to it when first needed, and anew when that broke. */
export class BrokerAgents {
  readonly #settings: BrokerSettings;
  #controller: Promise<ControllerAtBroker> | undefined;

  constructor(settings: BrokerSettings) {
    this.#settings = settings;
  }

  /**
   * A session with an agent, in which the contract is spoken.
   * @throws StaghornError 'host-unreachable' (broker or agent is not there), 'authentication-failed', 'cancelled'
   */
  async connect<C extends RpcContract>(
    contract: C,
    agent: string,
    { timeoutMs = defaultTimeoutMs, signal, maxMessageBytes }: ConnectAtBrokerOptions = {},
  ): Promise<{ client: RpcClient<C>; close(): Promise<void> }> {
    const absent = `no agent named ${agent} is connected to the broker ${this.#settings.host}:${this.#settings.port}`;
    const late = () => new StaghornError('host-unreachable', absent, { context: { host: agent } });
    const connection = await withDeadline({ timeoutMs, signal, late }, (limit) =>
      this.#open(agent, limit, maxMessageBytes),
    );
    const client = createRpcClient(contract, connection);
    const close = () => {
      client.close();
      return Promise.resolve();
    };
    return { client, close };
  }

  async close(): Promise<void> {
    const controller = await this.#controller?.catch(() => undefined);
    await controller?.connection.close();
  }

  /** Agents that lost the broker come back in their own time: until the limit, it is tried again. */
  async #open(agent: string, limit: AbortSignal, maxMessageBytes?: number): Promise<RpcConnection> {
    for (;;) {
      try {
        const controller = await unlessAborted(this.#connected(), limit);
        return await controller.open(agent, limit, maxMessageBytes);
      } catch (error) {
        if (!(error instanceof StaghornError) || error.code !== 'agent-lost') throw error;
        await unlessAborted(new Promise((resolve) => setTimeout(resolve, retryMs)), limit);
      }
    }
  }

  #connected(): Promise<ControllerAtBroker> {
    if (this.#controller !== undefined) return this.#controller;
    const connecting = ControllerAtBroker.connect(this.#settings);
    this.#controller = connecting;
    const forget = () => {
      if (this.#controller === connecting) this.#controller = undefined;
    };
    connecting.then(({ connection }) => connection.closed.then(forget), forget);
    return connecting;
  }
}
