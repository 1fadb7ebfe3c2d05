import { OvsdbError } from './errors.ts';
import { isJsonObject } from './json.ts';
import type { JsonObject, JsonValue } from './json.ts';

/** JSON-RPC 1.0 as RFC 7047, section 4 uses it. */
export type OvsdbMessage =
  | {
      readonly kind: 'request';
      readonly method: string;
      readonly params: JsonValue[];
      readonly id: JsonValue;
    }
  | { readonly kind: 'notification'; readonly method: string; readonly params: JsonValue[] }
  | { readonly kind: 'result'; readonly id: JsonValue; readonly result: JsonValue }
  | { readonly kind: 'error'; readonly id: JsonValue; readonly error: JsonValue };

/**
 * Sorts one JSON value into the message that it is.
 * @throws OvsdbError 'protocol' if it is none.
 */
export function parseMessage(value: JsonValue): OvsdbMessage {
  if (!isJsonObject(value)) throw malformed(value);
  return value['method'] === undefined ? parseReply(value) : parseCall(value);
}

function parseCall(message: JsonObject): OvsdbMessage {
  const { method, params, id } = message;
  if (typeof method !== 'string' || !Array.isArray(params)) throw malformed(message);
  if (id === undefined || id === null) return { kind: 'notification', method, params };
  return { kind: 'request', method, params, id };
}

function parseReply(message: JsonObject): OvsdbMessage {
  const { id, result, error } = message;
  if (id === undefined || (result === undefined && error === undefined)) throw malformed(message);
  if (error !== undefined && error !== null) return { kind: 'error', id, error };
  return { kind: 'result', id, result: result ?? null };
}

export function encodeMessage(message: OvsdbMessage): Buffer {
  return Buffer.from(JSON.stringify(wireForm(message)));
}

function wireForm(message: OvsdbMessage): object {
  switch (message.kind) {
    case 'request':
      return { method: message.method, params: message.params, id: message.id };
    case 'notification':
      return { method: message.method, params: message.params, id: null };
    case 'result':
      return { result: message.result, error: null, id: message.id };
    case 'error':
      return { result: null, error: message.error, id: message.id };
  }
}

function malformed(value: JsonValue): OvsdbError {
  return new OvsdbError('protocol', `not a JSON-RPC message: ${JSON.stringify(value).slice(0, 200)}`);
}
