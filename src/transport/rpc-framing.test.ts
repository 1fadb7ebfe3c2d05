import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FrameDecoder, encodeFrame } from './rpc-framing.ts';

const limitBytes = 100_000;

describe('RPC framing', () => {
  it('gives back every message, however the bytes are cut into chunks', () => {
    fc.assert(
      fc.property(
        fc.array(fc.jsonValue(), { maxLength: 5 }),
        fc.integer({ min: 1, max: 50 }),
        (values, stepBytes) => {
          const bytes = Buffer.concat(values.map((value) => encodeFrame({ value }, limitBytes)));
          const decoder = new FrameDecoder(limitBytes);
          const received: unknown[] = [];
          for (let at = 0; at < bytes.length; at += stepBytes)
            received.push(...decoder.push(bytes.subarray(at, at + stepBytes)));
          expect(received).toEqual(values.map((value) => JSON.parse(JSON.stringify({ value })) as unknown));
        },
      ),
    );
  });

  it('yields nothing for a truncated message', () => {
    const frame = encodeFrame({ text: 'é'.repeat(100) }, limitBytes);
    expect(new FrameDecoder(limitBytes).push(frame.subarray(0, -1))).toEqual([]);
  });

  it('refuses a message over the limit on its header alone', () => {
    const decoder = new FrameDecoder(1000);
    expect(() => decoder.push(Buffer.from('Content-Length: 1001\r\n\r\n'))).toThrow(
      /1001 bytes; the limit is 1000/,
    );
    expect(() => encodeFrame('x'.repeat(1000), 1000)).toThrow(/cannot send a message of 1002 bytes/);
  });

  it('quotes what came in the place of a header', () => {
    const decoder = new FrameDecoder(1000);
    expect(() => decoder.push(Buffer.from(`Welcome to host!\n${'.'.repeat(5000)}`))).toThrow(
      /Welcome to host!/,
    );
    expect(() => new FrameDecoder(1000).push(Buffer.from('Length: 5\r\n\r\nhello'))).toThrow(
      /without Content-Length/,
    );
    expect(() => new FrameDecoder(1000).push(Buffer.from('Content-Length: -5\r\n\r\nhello'))).toThrow(
      /Content-Length/,
    );
    expect(() => new FrameDecoder(1000).push(Buffer.from('Content-Length: 5\r\n\r\nhello'))).toThrow(
      /not JSON/,
    );
  });
});
