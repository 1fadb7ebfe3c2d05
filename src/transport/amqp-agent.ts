import type { StaghornError } from '../errors/index.ts';
import { asStaghornError, messageOf } from '../errors/index.ts';
import { BrokerConnection } from './amqp-connection.ts';
import type { Envelope, EnvelopeKind } from './amqp-envelope.ts';
import { BrokerSession, piecesOf } from './amqp-session.ts';
import type { BrokerSettings } from './amqp-settings.ts';
import { unlessAborted } from './deadline.ts';
import { transportLimits } from './limits.ts';
import type { RpcConnection } from './rpc-peer.ts';

export interface ServeAtBrokerOptions {
  readonly settings: BrokerSettings;
  /** Name under which controllers find it: its routing key. */
  readonly name: string;
  /** Serves one session; settles when the session is over and all that it had begun has been ended. */
  readonly serve: (connection: RpcConnection) => Promise<void>;
  readonly onConnected?: (() => void) | undefined;
  /** It could not connect, or has lost the broker; it will try again. */
  readonly onTrouble?: ((error: StaghornError) => void) | undefined;
  /** Ends it. */
  readonly signal: AbortSignal;
}

interface Served {
  readonly session: BrokerSession;
  readonly epoch: number;
  readonly done: Promise<void>;
}

const firstPauseMs = 250;
const longestPauseMs = 5_000;
const nothing: Buffer = Buffer.alloc(0);

/** Is an agent at the broker until the signal: connects, serves sessions, and connects anew when the broker is lost. */
export async function serveAtBroker(options: ServeAtBrokerOptions): Promise<void> {
  const { signal, onTrouble } = options;
  let pauseMs = firstPauseMs;
  while (!signal.aborted) {
    try {
      const agent = await AgentAtBroker.connect(options);
      options.onConnected?.();
      pauseMs = firstPauseMs;
      onTrouble?.(await agent.ended(signal));
    } catch (error) {
      if (!signal.aborted) onTrouble?.(asStaghornError(error));
    }
    // Spread out, so that not all agents of a site come back at the same moment.
    await pause(pauseMs * (0.5 + Math.random() / 2), signal);
    pauseMs = Math.min(2 * pauseMs, longestPauseMs);
  }
}

/** An agent's side of one connection to the broker. Every session ends with it. */
class AgentAtBroker {
  readonly #options: ServeAtBrokerOptions;
  readonly #connection: BrokerConnection;
  /** By controller and slot. */
  readonly #sessions = new Map<string, Served>();

  private constructor(options: ServeAtBrokerOptions, connection: BrokerConnection) {
    this.#options = options;
    this.#connection = connection;
  }

  static async connect(options: ServeAtBrokerOptions): Promise<AgentAtBroker> {
    // What comes before the agent is made waits: the first `open` may be there already.
    const early: Envelope[] = [];
    const link = {
      onEnvelope: (envelope: Envelope): void => void early.push(envelope),
      onReturned: (_controller: string, _slot: number): void => undefined,
    };
    const connection = await BrokerConnection.open({
      settings: options.settings,
      role: 'agents',
      name: options.name,
      onEnvelope: (envelope) => link.onEnvelope(envelope),
      onReturned: (controller, slot) => link.onReturned(controller, slot),
    });
    const agent = new AgentAtBroker(options, connection);
    link.onEnvelope = (envelope) => agent.#receive(envelope);
    link.onReturned = (controller, slot) => agent.#returned(controller, slot);
    for (const envelope of early) agent.#receive(envelope);
    return agent;
  }

  /** Settles with the reason when the connection is over; on the signal, ends it in order. */
  async ended(signal: AbortSignal): Promise<StaghornError> {
    const beat = setInterval(() => this.#beatAll(), transportLimits.brokerBeatMs);
    const reason = await unlessAborted(this.#connection.closed, signal).catch(asStaghornError);
    clearInterval(beat);
    const open = [...this.#sessions.values()];
    for (const { session } of open) session.end(reason);
    if (signal.aborted) {
      for (const [key, { epoch }] of this.#sessions) this.#tell(key, 'end', epoch, stopped);
      await Promise.all(open.map(({ done }) => done));
      await this.#connection.close();
    }
    return reason;
  }

  #receive(envelope: Envelope): void {
    const { kind, from, slot, number, body } = envelope;
    const served = this.#sessions.get(keyOf(envelope));
    if (kind === 'open') {
      if (served === undefined || number > served.epoch) this.#open(envelope, served);
    } else if (served === undefined) {
      if (kind !== 'end') this.#send(from, 'end', slot, number, noSession);
    } else if (served.session.admits(envelope)) {
      if (kind === 'bytes') served.session.receive(body);
      else if (kind === 'end') served.session.end(served.session.lost('ended the session'));
    }
  }

  #open({ from, slot, number: epoch }: Envelope, previous: Served | undefined): void {
    const session = new BrokerSession({
      host: 'controller',
      afterNumber: epoch,
      send: (chunk) => {
        for (const piece of piecesOf(chunk)) this.#send(from, 'bytes', slot, epoch, piece);
        return this.#connection.drained;
      },
      onFinished: () => this.#send(from, 'end', slot, epoch, Buffer.from('ended the session')),
    });
    previous?.session.end(previous.session.lost('began a new session'));
    const begin = async () => {
      // What the earlier session had begun is ended before a new one may begin the same.
      await previous?.done;
      const over = this.#options.serve(session);
      this.#send(from, 'accept', slot, epoch);
      await over;
    };
    const key = keyOf({ from, slot });
    const done = begin()
      .catch((error: unknown) => this.#send(from, 'end', slot, epoch, Buffer.from(messageOf(error))))
      .finally(() => this.#forget(key, served));
    const served: Served = { session, epoch, done };
    this.#sessions.set(key, served);
  }

  #forget(key: string, served: Served): void {
    if (this.#sessions.get(key) === served) this.#sessions.delete(key);
  }

  #returned(controller: string, slot: number): void {
    const session = this.#sessions.get(keyOf({ from: controller, slot }))?.session;
    session?.end(session.lost('is not connected to the broker any more'));
  }

  #send(to: string, kind: EnvelopeKind, slot: number, epoch: number, body = nothing): void {
    this.#connection.publish([to], { kind, slot, epoch, body });
  }

  #beatAll(): void {
    for (const [key, { session, epoch }] of this.#sessions) {
      session.endIfSilent();
      this.#tell(key, 'beat', epoch);
    }
  }

  #tell(key: string, kind: EnvelopeKind, epoch: number, body?: Buffer): void {
    const [slot = '0', controller = ''] = key.split(' ');
    this.#send(controller, kind, Number(slot), epoch, body);
  }
}

const stopped = Buffer.from('was stopped');
const noSession = Buffer.from('has no such session: it was started anew, or has given the session up');
const keyOf = ({ from, slot }: Pick<Envelope, 'from' | 'slot'>) => `${slot} ${from}`;

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await unlessAborted(over, signal).catch(() => undefined);
  clearTimeout(timer);
}
