import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { SseDecoder, type SseMessage } from './sse.ts';

function decode(parts: readonly string[]): SseMessage[] {
  const decoder = new SseDecoder({ maxMessageBytes: 10_000 });
  return parts.flatMap((part) => decoder.push(part));
}

const text = fc.string().map((value) => value.replaceAll(/[\r\n]/g, ''));
const message = fc.record({
  id: text,
  event: text.map((name) => name || 'message'),
  data: fc.array(text, { minLength: 1 }),
});

describe('decoding an event stream', () => {
  it('gives what was sent, whatever the line ends and however it is cut', () => {
    const property = fc.property(
      fc.array(message),
      fc.constantFrom('\n', '\r\n', '\r'),
      fc.array(fc.nat({ max: 20 })),
      (messages, end, sizes) => {
        const lines = messages.flatMap(({ id, event, data }) => [
          `id: ${id}`,
          `event: ${event}`,
          ...data.map((line) => `data: ${line}`),
          ': comment',
          '',
        ]);
        // The last line end is the beginning of a next message: a lone CR at the end could be half of CRLF.
        const whole = lines.map((line) => line + end).join('') + ':';
        const parts: string[] = [];
        let at = 0;
        for (const size of sizes) parts.push(whole.slice(at, (at += size)));
        expect(decode([...parts, whole.slice(at)])).toEqual(
          messages.map(({ id, event, data }) => ({ id, event, data: data.join('\n') })),
        );
      },
    );
    fc.assert(property);
  });

  it('takes off one space only, takes fields without a colon, and drops events without data', () => {
    expect(decode(['data:  a\ndata\ndata:b\n\nevent: x\n\n'])).toEqual([
      { id: '', event: 'message', data: ' a\n\nb' },
    ]);
  });

  it('holds on to the last id', () => {
    expect(decode(['id: 7\ndata: a\n\ndata: b\n\n']).map(({ id }) => id)).toEqual(['7', '7']);
  });

  it('refuses a message above the limit, also one that never ends', () => {
    const decoder = new SseDecoder({ maxMessageBytes: 100 });
    expect(() => decoder.push(`data: ${'x'.repeat(200)}`)).toThrow(RangeError);
    const lines = new SseDecoder({ maxMessageBytes: 100 });
    expect(() => lines.push('data: x\n'.repeat(50))).toThrow(RangeError);
  });
});
