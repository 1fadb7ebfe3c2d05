import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { QmpDecoder } from './decoder.ts';
import { QmpError } from './errors.ts';
import type { QmpMessage } from './messages.ts';

const MAX_BYTES = 4096;
const json = fc.jsonValue({ maxDepth: 3, depthSize: 'small' });
const object = fc.dictionary(fc.string(), json, { maxKeys: 4 });
const text = fc.string({ unit: 'grapheme', maxLength: 20 });

interface Wire {
  readonly line: unknown;
  readonly message: QmpMessage;
}

/** A message as QEMU writes it, beside what the decoder is to make of it. */
const wire: fc.Arbitrary<Wire> = fc.oneof(
  fc.record({ id: text, value: json }).map(({ id, value }) => ({
    line: { return: value, id },
    message: { kind: 'return' as const, id, value: asJson(value) as never },
  })),
  fc.record({ id: text, errorClass: text, description: text }).map(({ id, errorClass, description }) => ({
    line: { error: { class: errorClass, desc: description }, id },
    message: { kind: 'error' as const, id, errorClass, description },
  })),
  fc
    .record({ name: text, data: object, seconds: fc.nat(), microseconds: fc.nat(999_999) })
    .map(({ name, data, seconds, microseconds }) => ({
      line: { event: name, data, timestamp: { seconds, microseconds } },
      message: {
        kind: 'event' as const,
        name,
        data: asJson(data) as never,
        timestampNs: BigInt(seconds) * 1_000_000_000n + BigInt(microseconds) * 1000n,
      },
    })),
);

function asJson<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

function encode(lines: readonly unknown[], ending = '\r\n'): Buffer {
  return Buffer.from(lines.map((line) => JSON.stringify(line) + ending).join(''));
}

/** Cuts at the given places (taken modulo the length). */
function chunked(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  const edges = [0, ...places, bytes.length];
  return edges.slice(1).map((edge, index) => bytes.subarray(edges[index], edge));
}

/** All that comes out until the stream fails, and the failure. */
function decodeAll(
  chunks: readonly Uint8Array[],
  maxBytes = MAX_BYTES,
): { messages: QmpMessage[]; code: string | undefined } {
  const decoder = new QmpDecoder(maxBytes);
  const messages: QmpMessage[] = [];
  for (const chunk of chunks) {
    messages.push(...decoder.push(chunk));
    if (decoder.failure !== undefined) break;
  }
  return { messages, code: decoder.failure?.code };
}

describe('QmpDecoder', () => {
  const wires = fc.array(wire, { maxLength: 6 });
  const cuts = fc.array(fc.nat(), { maxLength: 20 });

  it('gives back what was sent, however it is chunked and whichever line ending is used', () => {
    fc.assert(
      fc.property(wires, cuts, fc.constantFrom('\n', '\r\n', '\r\n\r\n'), (sent, places, ending) => {
        const bytes = encode(
          sent.map(({ line }) => line),
          ending,
        );
        const { messages, code } = decodeAll(chunked(bytes, places), 1 << 20);
        expect(code).toBeUndefined();
        expect(messages).toEqual(sent.map(({ message }) => message));
      }),
    );
  });

  it('works byte by byte', () => {
    const bytes = encode([
      { return: 'é€😀', id: '1' },
      { return: {}, id: '2' },
    ]);
    const { messages } = decodeAll([...bytes].map((byte) => Uint8Array.of(byte)));
    expect(messages).toEqual([
      { kind: 'return', id: '1', value: 'é€😀' },
      { kind: 'return', id: '2', value: {} },
    ]);
  });

  it('gives a truncated stream up to its last whole message and keeps the rest', () => {
    fc.assert(
      fc.property(fc.array(wire, { minLength: 1, maxLength: 4 }), fc.nat(), (sent, at) => {
        const bytes = encode(sent.map(({ line }) => line));
        const cut = bytes.subarray(0, at % bytes.length);
        const decoder = new QmpDecoder(1 << 20);
        const messages = decoder.push(cut);
        const wholeLines = cut.toString('latin1').split('\n').length - 1;
        expect(messages).toEqual(sent.slice(0, wholeLines).map(({ message }) => message));
        expect(decoder.pendingBytes).toBe(cut.length - (cut.lastIndexOf(0x0a) + 1));
      }),
    );
  });

  it('refuses a message over the limit as soon as the limit is passed, without keeping it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 16, max: 500 }), fc.integer({ min: 1, max: 64 }), (limit, step) => {
        const decoder = new QmpDecoder(limit);
        let fed = 0;
        while (decoder.failure === undefined && fed < limit + step) {
          decoder.push(Buffer.alloc(step, 0x20));
          fed += step;
        }
        expect(decoder.failure?.code).toBe('oversize');
        expect(decoder.pendingBytes).toBe(0);
        expect(fed).toBeLessThanOrEqual(limit + step);
      }),
    );
  });

  it('takes a message of exactly the limit and refuses one byte more', () => {
    const line = '{"return":{},"id":"1"}';
    expect(decodeAll([Buffer.from(`${line}\n`)], line.length)).toMatchObject({
      code: undefined,
      messages: [{ id: '1' }],
    });
    expect(decodeAll([Buffer.from(`${line}\n`)], line.length - 1)).toEqual({
      code: 'oversize',
      messages: [],
    });
  });

  it('answers garbage with QmpError and nothing else, the same for every chunking', () => {
    const pieces = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc
        .constantFrom('{', '}', '\n', '[]\n', '{"QMP":1}\n', '{"event":2}\n', '{"return":{},"id":"1"}\n')
        .map((piece) => Buffer.from(piece)),
    );
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 10 }), cuts, (garbage, places) => {
        const bytes = Buffer.concat(garbage);
        const whole = decodeAll([bytes]);
        expect(decodeAll(chunked(bytes, places))).toEqual(whole);
        expect(['protocol', undefined]).toContain(whole.code);
      }),
    );
  });

  it('hands over what came before a fault in the same chunk, then refuses to go on', () => {
    const decoder = new QmpDecoder(MAX_BYTES);
    expect(
      decoder.push(Buffer.from('{"return":1,"id":"1"}\nnonsense\n{"return":2,"id":"2"}\n')),
    ).toHaveLength(1);
    expect(decoder.failure?.code).toBe('protocol');
    expect(() => decoder.push(Buffer.from('{"return":3,"id":"3"}\n'))).toThrow(QmpError);
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(decodeAll([Buffer.from('{"return":"\xff","id":"1"}\n', 'latin1')]).code).toBe('protocol');
  });

  it.each([
    ['an array', '[]'],
    ['a reply without content', '{"id":"1"}'],
    ['a greeting without capabilities', '{"QMP":{"version":{"qemu":{"major":7,"minor":2,"micro":0}}}}'],
    ['an error without description', '{"error":{"class":"GenericError"},"id":"1"}'],
    ['an event without timestamp', '{"event":"STOP"}'],
    ['an event with a broken timestamp', '{"event":"STOP","timestamp":{"seconds":1.5,"microseconds":0}}'],
  ])('refuses %s', (_what, line) => {
    expect(decodeAll([Buffer.from(`${line}\n`)])).toEqual({ messages: [], code: 'protocol' });
  });

  it('reads a greeting and an event as QEMU 7.2 writes them', () => {
    const bytes = Buffer.from(
      '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}\r\n' +
        '{"timestamp": {"seconds": 1700000000, "microseconds": 123456}, "event": "STOP"}\r\n' +
        '{"timestamp": {"seconds": -1, "microseconds": -1}, "event": "RESUME"}\r\n',
    );
    expect(decodeAll([bytes]).messages).toEqual([
      {
        kind: 'greeting',
        greeting: {
          version: { major: 7, minor: 2, micro: 22 },
          packageVersion: 'Debian 1:7.2',
          capabilities: ['oob'],
        },
      },
      { kind: 'event', name: 'STOP', data: {}, timestampNs: 1_700_000_000_123_456_000n },
      { kind: 'event', name: 'RESUME', data: {}, timestampNs: -1n },
    ]);
  });
});
