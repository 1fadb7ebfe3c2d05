import { connect, type Channel, type ChannelModel, type Message, type Options } from 'amqplib';
import { StaghornError, messageOf } from '../errors/index.ts';
import { decodeEnvelope, encodeEnvelope, type Envelope } from './amqp-envelope.ts';
import type { BrokerSettings } from './amqp-settings.ts';
import { transportLimits } from './limits.ts';

/** The two sides, each with an exchange that the other publishes to. */
export type BrokerRole = 'agents' | 'controllers';

export interface BrokerConnectionOptions {
  readonly settings: BrokerSettings;
  readonly role: BrokerRole;
  /** This side's routing key, and the name of its queue. */
  readonly name: string;
  readonly onEnvelope: (envelope: Envelope) => void;
  /** A message came back: nobody has a queue for that routing key. */
  readonly onReturned: (target: string, slot: number) => void;
}

export type Outgoing = Omit<Envelope, 'from' | 'number'>;

const connectTimeoutMs = 10_000;
const exchangeOf = (role: BrokerRole) => `staghorn.${role}`;

/**
 * A connection to the broker with one channel and one queue, which lives as long as the connection. Messages are
 * delivered at most once: they are not kept on disk, need no acknowledgement, and are never delivered again.
 */
export class BrokerConnection {
  readonly closed: Promise<StaghornError>;
  readonly #options: BrokerConnectionOptions;
  readonly #model: ChannelModel;
  readonly #channel: Channel;
  readonly #receivers: string;
  #lastNumber = 0;
  #end: (reason: StaghornError) => void = () => undefined;
  #ended = false;
  #failure: Error | undefined;
  #drained: Promise<void> | undefined;

  private constructor(options: BrokerConnectionOptions, model: ChannelModel, channel: Channel) {
    this.#options = options;
    this.#model = model;
    this.#channel = channel;
    this.#receivers = exchangeOf(options.role === 'agents' ? 'controllers' : 'agents');
    this.closed = new Promise((resolve) => {
      this.#end = (reason) => {
        this.#ended = true;
        resolve(reason);
      };
    });
    model.on('error', (error) => (this.#failure ??= error));
    model.on('close', (error) => this.#lost(error));
    channel.on('error', (error) => this.#lost(error));
    channel.on('close', () => this.#lost(undefined));
    channel.on('return', ({ fields, properties, content }: Message) => {
      const envelope = decodeEnvelope({ ...properties }, content);
      if (envelope !== null) options.onReturned(fields.routingKey, envelope.slot);
    });
  }

  /**
   * @throws StaghornError 'host-unreachable', 'authentication-failed' (user, password, vhost, permissions),
   *   'conflict' (somebody is connected under this name)
   */
  static async open(options: BrokerConnectionOptions): Promise<BrokerConnection> {
    const { settings } = options;
    let model: ChannelModel | undefined;
    try {
      model = await connectTo(settings);
      // Until the connection has listeners of its own.
      model.on('error', () => undefined);
      const channel = await model.createChannel();
      channel.on('error', () => undefined);
      const connection = new BrokerConnection(options, model, channel);
      await connection.#prepare();
      return connection;
    } catch (error) {
      await model?.close().catch(() => undefined);
      throw refusal(settings, options.name, error);
    }
  }

  /** Publishes one message to everybody named. @returns its number */
  publish(targets: readonly string[], { kind, slot, epoch, body }: Outgoing): number {
    const number = (this.#lastNumber += 1);
    const properties = encodeEnvelope({ kind, number, slot, epoch, from: this.#options.name, body });
    for (let i = 0; i < targets.length && !this.#ended; i += transportLimits.brokerTargets) {
      const [first = '', ...rest] = targets.slice(i, i + transportLimits.brokerTargets);
      // Sender-selected distribution (RabbitMQ): one message, routed by its own key and by each of BCC.
      const options = { ...properties, mandatory: true, persistent: false, BCC: rest };
      this.#send(first, body, options);
    }
    return number;
  }

  /** Settles when the broker takes more; undefined if it does so now. */
  get drained(): Promise<void> | undefined {
    return this.#drained;
  }

  /** What was published before is still sent. */
  async close(): Promise<void> {
    this.#end(new StaghornError('cancelled', 'the connection to the broker was closed on this side'));
    await this.#model.close().catch(() => undefined);
  }

  async #prepare(): Promise<void> {
    const { role, name, onEnvelope } = this.#options;
    const own = exchangeOf(role);
    const queue = `${own}.${name}`;
    for (const exchange of [own, this.#receivers]) {
      await this.#channel.assertExchange(exchange, 'direct', { durable: true });
    }
    await this.#channel.assertQueue(queue, { exclusive: true, autoDelete: true, durable: false });
    await this.#channel.bindQueue(queue, own, name);
    const onMessage = (message: Message | null) => {
      // RabbitMQ cancels a consumer whose queue is deleted.
      if (message === null) return this.#lost(new Error('the queue was deleted'));
      const envelope = decodeEnvelope({ ...message.properties }, message.content);
      if (envelope !== null) onEnvelope(envelope);
    };
    await this.#channel.consume(queue, onMessage, { noAck: true, exclusive: true });
  }

  #send(target: string, body: Buffer, options: Options.Publish): void {
    try {
      if (!this.#channel.publish(this.#receivers, target, body, options)) this.#drained ??= this.#drain();
    } catch (error) {
      // amqplib throws on a channel that is closing, before it tells that it closes.
      this.#lost(error instanceof Error ? error : undefined);
    }
  }

  async #drain(): Promise<void> {
    await Promise.race([new Promise<void>((resolve) => this.#channel.once('drain', resolve)), this.closed]);
    this.#drained = undefined;
  }

  #lost(error: Error | undefined): void {
    if (this.#ended) return;
    const { host, port } = this.#options.settings;
    const cause = error ?? this.#failure;
    const why = cause === undefined ? '' : `: ${cause.message}`;
    this.#end(
      new StaghornError('agent-lost', `the connection to the broker ${host}:${port} was lost${why}`, {
        cause,
      }),
    );
    // A channel that failed leaves its connection open.
    void this.#model.close().catch(() => undefined);
  }
}

function connectTo(settings: BrokerSettings): Promise<ChannelModel> {
  const { host: hostname, port, vhost, tls, user, password, ca, certificate, key } = settings;
  return connect(
    {
      protocol: tls ? 'amqps' : 'amqp',
      hostname,
      port,
      vhost: encodeURIComponent(vhost),
      username: user,
      password,
      heartbeat: transportLimits.brokerHeartbeatS,
    },
    {
      noDelay: true,
      timeout: connectTimeoutMs,
      ...(ca === undefined ? {} : { ca: [ca] }),
      ...(certificate === undefined ? {} : { cert: certificate }),
      ...(key === undefined ? {} : { key }),
    },
  );
}

/** Reply codes of AMQP 0-9-1, section 1.1, as amqplib words them. */
function refusal({ host, port, user, vhost }: BrokerSettings, name: string, error: unknown): StaghornError {
  const text = messageOf(error);
  const at = `the broker ${host}:${port}`;
  if (/\b(403|530)\b|ACCESS[-_]REFUSED|NOT[-_]ALLOWED/.test(text)) {
    const what = `${at} refuses user ${user} at vhost ${vhost}: ${text}`;
    return new StaghornError('authentication-failed', what, { cause: error });
  }
  if (/RESOURCE[-_]LOCKED/.test(text)) {
    return new StaghornError('conflict', `somebody is connected to ${at} as ${name}: ${text}`, {
      cause: error,
    });
  }
  return new StaghornError('host-unreachable', `cannot connect to ${at}: ${text}`, { cause: error });
}
