import { QmpError } from './errors.ts';
import { isJsonObject } from './json.ts';
import type { JsonObject, JsonValue } from './json.ts';

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
}

/** What QEMU says first (qmp-spec.txt, section 2.2). */
export interface QmpGreeting {
  readonly version: QmpVersion;
  /** The distribution's suffix, "" if there is none. */
  readonly packageVersion: string;
  /** What may be enabled in the negotiation, for example 'oob'. */
  readonly capabilities: readonly string[];
}

/** All that QEMU may send (qmp-spec.txt, sections 2.2, 2.4 and 2.5). */
export type QmpMessage =
  | { readonly kind: 'greeting'; readonly greeting: QmpGreeting }
  | { readonly kind: 'return'; readonly id: JsonValue | undefined; readonly value: JsonValue }
  | {
      readonly kind: 'error';
      readonly id: JsonValue | undefined;
      readonly errorClass: string;
      readonly description: string;
    }
  | {
      readonly kind: 'event';
      readonly name: string;
      readonly data: JsonObject;
      /** CLOCK_REALTIME of the QEMU process, in nanoseconds; −1n where QEMU could not tell. */
      readonly timestampNs: bigint;
    };

/**
 * Sorts one JSON value into the message that it is.
 * @throws QmpError 'protocol' if it is none.
 */
export function parseMessage(value: JsonValue): QmpMessage {
  if (!isJsonObject(value)) throw malformed('a message is not a JSON object', value);
  if (value['QMP'] !== undefined) return { kind: 'greeting', greeting: parseGreeting(value['QMP']) };
  if (value['return'] !== undefined) return { kind: 'return', id: value['id'], value: value['return'] };
  if (value['error'] !== undefined) return parseFailure(value, value['error']);
  if (value['event'] !== undefined) return parseEvent(value, value['event']);
  throw malformed('a message is neither greeting, return, error nor event', value);
}

function parseGreeting(value: JsonValue): QmpGreeting {
  const version = isJsonObject(value) ? value['version'] : undefined;
  const qemu = isJsonObject(version) ? version['qemu'] : undefined;
  const packageVersion = isJsonObject(version) ? version['package'] : undefined;
  const capabilities = isJsonObject(value) ? value['capabilities'] : undefined;
  if (!isJsonObject(qemu) || !isStringArray(capabilities))
    throw malformed('the greeting is malformed', value);
  const { major, minor, micro } = qemu;
  if (typeof major !== 'number' || typeof minor !== 'number' || typeof micro !== 'number') {
    throw malformed('the greeting names no version', value);
  }
  return {
    version: { major, minor, micro },
    packageVersion: typeof packageVersion === 'string' ? packageVersion : '',
    capabilities,
  };
}

function parseFailure(message: JsonObject, error: JsonValue): QmpMessage {
  const errorClass = isJsonObject(error) ? error['class'] : undefined;
  const description = isJsonObject(error) ? error['desc'] : undefined;
  if (typeof errorClass !== 'string' || typeof description !== 'string') {
    throw malformed('an error reply lacks its class or description', message);
  }
  return { kind: 'error', id: message['id'], errorClass, description };
}

function parseEvent(message: JsonObject, name: JsonValue): QmpMessage {
  const data = message['data'] ?? {};
  if (typeof name !== 'string' || !isJsonObject(data)) throw malformed('an event is malformed', message);
  return { kind: 'event', name, data, timestampNs: parseTimestampNs(message) };
}

function parseTimestampNs(message: JsonObject): bigint {
  const timestamp = message['timestamp'];
  const seconds = isJsonObject(timestamp) ? timestamp['seconds'] : undefined;
  const microseconds = isJsonObject(timestamp) ? timestamp['microseconds'] : undefined;
  if (!Number.isSafeInteger(seconds) || !Number.isSafeInteger(microseconds)) {
    throw malformed('an event has no timestamp', message);
  }
  // "Both members are set to -1 if the host's time cannot be read" (qmp-spec.txt, section 2.5).
  if (seconds === -1) return -1n;
  return BigInt(seconds as number) * 1_000_000_000n + BigInt(microseconds as number) * 1_000n;
}

function isStringArray(value: JsonValue | undefined): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function malformed(what: string, value: JsonValue): QmpError {
  return new QmpError('protocol', `${what}: ${JSON.stringify(value).slice(0, 200)}`);
}
