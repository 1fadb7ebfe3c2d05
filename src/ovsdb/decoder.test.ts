import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OvsdbDecoder } from './decoder.ts';
import { OvsdbError } from './errors.ts';
import type { JsonValue } from './json.ts';
import { encodeMessage } from './messages.ts';
import type { OvsdbMessage } from './messages.ts';

const LARGE = 1 << 20;

/** JSON full of what could mislead a scanner: braces, quotes and backslashes inside strings, and any Unicode. */
const trickyText = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 12 }),
  fc.string({ unit: fc.constantFrom('{', '}', '[', ']', '"', '\\', '\n', 'é', '😀'), maxLength: 12 }),
);
const json: fc.Arbitrary<JsonValue> = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3, depthSize: 'small' },
    fc.oneof(trickyText, fc.integer(), fc.boolean(), fc.constant(null)),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(trickyText, tie('value'), { maxKeys: 3 }),
  ),
})).value;
const params = fc.array(json, { maxLength: 3 });

const message: fc.Arbitrary<OvsdbMessage> = fc.oneof(
  fc.record({ kind: fc.constant('request' as const), method: trickyText, params, id: trickyText }),
  fc.record({ kind: fc.constant('notification' as const), method: trickyText, params }),
  fc.record({ kind: fc.constant('result' as const), id: json, result: json }),
  fc.record({ kind: fc.constant('error' as const), id: json, error: trickyText }),
);

/** Cuts at the given places (taken modulo the length). */
function chunked(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  const edges = [0, ...places, bytes.length];
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
}

/** All that comes out until the stream fails, and the failure. */
function decodeAll(
  chunks: readonly Uint8Array[],
  maxBytes = LARGE,
): { messages: OvsdbMessage[]; code: string | undefined } {
  const decoder = new OvsdbDecoder(maxBytes);
  const messages: OvsdbMessage[] = [];
  for (const chunk of chunks) {
    messages.push(...decoder.push(chunk));
    if (decoder.failure !== undefined) break;
  }
  return { messages, code: decoder.failure?.code };
}

describe('OvsdbDecoder', () => {
  const messages = fc.array(message, { maxLength: 6 });
  const cuts = fc.array(fc.nat(), { maxLength: 20 });
  const between = fc.constantFrom('', ' ', '\n', ' \t\r\n ');

  it('gives back what was sent, however it is chunked and with white space or none in between', () => {
    fc.assert(
      fc.property(messages, cuts, between, (sent, places, space) => {
        const bytes = Buffer.concat(sent.flatMap((item) => [encodeMessage(item), Buffer.from(space)]));
        expect(decodeAll(chunked(bytes, places))).toEqual({ messages: sent, code: undefined });
        expect(decodeAll([...bytes].map((byte) => Uint8Array.of(byte))).messages).toEqual(sent);
      }),
    );
  });

  it('gives a truncated stream up to its last whole message and keeps the rest', () => {
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 4 }), fc.nat(), (sent, at) => {
        const encoded = sent.map(encodeMessage);
        const bytes = Buffer.concat(encoded);
        const cut = bytes.subarray(0, at % bytes.length);
        const ends = encoded.map((_, index) => Buffer.concat(encoded.slice(0, index + 1)).length);
        const whole = ends.filter((end) => end <= cut.length).length;
        const decoder = new OvsdbDecoder(LARGE);
        expect(decoder.push(cut)).toEqual(sent.slice(0, whole));
        expect(decoder.pendingBytes).toBe(cut.length - (ends[whole - 1] ?? 0));
      }),
    );
  });

  it('refuses a message over the limit as soon as the limit is passed, without keeping it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 16, max: 500 }), fc.integer({ min: 1, max: 64 }), (limit, step) => {
        const decoder = new OvsdbDecoder(limit);
        let fed = 0;
        while (decoder.failure === undefined && fed < limit + step) {
          decoder.push(Buffer.alloc(step, '['.charCodeAt(0)).fill('{', 0, 1));
          fed += step;
        }
        expect(decoder.failure?.code).toBe('oversize');
        expect(decoder.pendingBytes).toBe(0);
      }),
    );
  });

  it('takes a message of exactly the limit and refuses one byte more', () => {
    const bytes = encodeMessage({ kind: 'result', id: '1', result: [] });
    expect(decodeAll([bytes], bytes.length)).toMatchObject({ code: undefined, messages: [{ id: '1' }] });
    expect(decodeAll([bytes], bytes.length - 1)).toEqual({ code: 'oversize', messages: [] });
  });

  it('answers garbage with OvsdbError and nothing else, the same for every chunking', () => {
    const piece = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc
        .constantFrom('{', '}', '[', ']', '"', '\\', '{]', '{"method":1}', '{"id":"1","result":0}')
        .map((text) => Buffer.from(text)),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 10 }), cuts, (garbage, places) => {
        const bytes = Buffer.concat(garbage);
        const whole = decodeAll([bytes]);
        expect(decodeAll(chunked(bytes, places))).toEqual(whole);
        expect(['protocol', undefined]).toContain(whole.code);
      }),
    );
  });

  it('reads deep nesting up to the size limit', () => {
    const depth = 100_000;
    const bytes = Buffer.from(`{"id":"1","result":${'['.repeat(depth)}${']'.repeat(depth)}}`);
    const outcome = decodeAll([bytes]);
    expect(outcome.code ?? outcome.messages.length).toBe(1);
  });

  it('hands over what came before a fault in the same chunk, then refuses to go on', () => {
    const decoder = new OvsdbDecoder(LARGE);
    const good = '{"id":"1","result":0,"error":null}';
    expect(decoder.push(Buffer.from(`${good},${good}`))).toHaveLength(1);
    expect(decoder.failure?.code).toBe('protocol');
    expect(() => decoder.push(Buffer.from(good))).toThrow(OvsdbError);
  });

  it.each([
    ['bytes that are not UTF-8', Buffer.from('{"id":"\xff","result":0}', 'latin1')],
    ['an array at the top', Buffer.from('[]')],
    ['a bare number', Buffer.from('1 ')],
    ['a reply without an id', Buffer.from('{"result":0}')],
    ['a request whose parameters are no array', Buffer.from('{"method":"echo","params":{},"id":1}')],
  ])('refuses %s', (_what, bytes) => {
    expect(decodeAll([bytes])).toEqual({ messages: [], code: 'protocol' });
  });
});
