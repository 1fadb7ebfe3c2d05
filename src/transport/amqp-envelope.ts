/**
 * What a message at the broker is. `open` asks an agent for a session, `accept` is its answer, `bytes` carries a
 * piece of the session's byte stream, `beat` says that the sender is there, `end` that the session is over, and why.
 */
export type EnvelopeKind = 'open' | 'accept' | 'bytes' | 'beat' | 'end';

export interface Envelope {
  readonly kind: EnvelopeKind;
  /** Counts up over all messages of a sender's connection: what is not above the last one came twice. */
  readonly number: number;
  /** Which of the sessions between this controller and this agent. */
  readonly slot: number;
  /** The number of the `open` that a message of an agent belongs to; 0 in messages to agents. */
  readonly epoch: number;
  /** The sender's routing key. */
  readonly from: string;
  readonly body: Buffer;
}

/** AMQP 0-9-1, basic properties: those that are used here. */
export interface EnvelopeProperties {
  readonly appId: 'staghorn';
  readonly type: EnvelopeKind;
  readonly messageId: string;
  readonly correlationId: string;
  readonly replyTo: string;
}

const kinds: readonly unknown[] = ['open', 'accept', 'bytes', 'beat', 'end'] satisfies EnvelopeKind[];

export function encodeEnvelope({ kind, number, slot, epoch, from }: Envelope): EnvelopeProperties {
  return {
    appId: 'staghorn',
    type: kind,
    messageId: String(number),
    correlationId: `${slot}.${epoch}`,
    replyTo: from,
  };
}

/** Null if it is no message of Staghorn's: whoever may publish can send anything, and that must end no session. */
export function decodeEnvelope(properties: Readonly<Record<string, unknown>>, body: Buffer): Envelope | null {
  const { appId, type, messageId, correlationId, replyTo } = properties;
  const [slot, epoch] = numbers(correlationId);
  const [number] = numbers(messageId);
  if (appId !== 'staghorn' || !kinds.includes(type) || typeof replyTo !== 'string') return null;
  if (number === undefined || slot === undefined || epoch === undefined) return null;
  return { kind: type as EnvelopeKind, number, slot, epoch, from: replyTo, body };
}

function numbers(text: unknown): number[] {
  return typeof text === 'string' && /^\d{1,15}(\.\d{1,15})?$/.test(text) ? text.split('.').map(Number) : [];
}
