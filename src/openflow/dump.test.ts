import { describe, expect, it } from 'vitest';

import { TableDump } from './dump.ts';
import { encodeMessage, messageType, OpenFlowDecoder } from './messages.ts';

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;
const hello = (version: number, body = Buffer.alloc(0)) => ({
  version,
  type: messageType.hello,
  xid: 9,
  body,
});
const bitmap = (bits: number) => Buffer.from([0, 1, 0, 8, 0, 0, 0, bits]);
const part = (xid: number, content: string, flags = 0) => ({
  version: 6,
  type: messageType.multipartReply,
  xid,
  body: Buffer.concat([Buffer.from([0, 0, 0, flags, 0, 0, 0, 0]), Buffer.from(content)]),
});

describe('the decoder', () => {
  it('finds messages however the stream is cut', () => {
    const messages = [part(1, 'flows'), hello(6, bitmap(0x70)), part(2, '')];
    const bytes = Buffer.concat(messages.map(encodeMessage));
    for (let size = 1; size <= bytes.length; size++) {
      const decoder = new OpenFlowDecoder();
      const found = [];
      for (let at = 0; at < bytes.length; at += size)
        found.push(...decoder.push(bytes.subarray(at, at + size)));
      expect(found).toEqual(messages);
    }
  });

  it('keeps what is not whole yet, and refuses a length that holds no header', () => {
    const bytes = encodeMessage(part(1, 'flows'));
    expect(new OpenFlowDecoder().push(bytes.subarray(0, -1))).toEqual([]);
    expect(() => new OpenFlowDecoder().push(Buffer.from([6, 0, 0, 7, 0, 0, 0, 0]))).toThrow(
      withCode('protocol'),
    );
  });
});

describe('a dump', () => {
  it('asks for everything in the newest version that both speak', () => {
    const asked = (of: ReturnType<typeof hello>) =>
      new OpenFlowDecoder().push(new TableDump().receive(of)!).map(({ version }) => version);
    expect(asked(hello(6, bitmap(0x7e)))).toEqual([6, 6, 6]);
    // 1.3, but not 1.4, and 1.6, which nobody asked for.
    expect(asked(hello(7, bitmap(0x90)))).toEqual([4, 4, 4]);
    expect(asked(hello(5))).toEqual([5, 5, 5]);
    expect(() => new TableDump().receive(hello(1))).toThrow(withCode('version'));
    expect(() => new TableDump().receive(hello(6, bitmap(0x0e)))).toThrow(withCode('version'));
  });

  it('is whole when the last part of each table has come, in whatever order', () => {
    const dump = new TableDump();
    dump.receive(hello(6));
    for (const message of [part(3, 'm'), part(1, 'fl', 1), part(2, 'g')]) {
      expect(dump.receive(message)).toBeNull();
      expect(dump.result).toBeNull();
    }
    dump.receive(part(1, 'ows'));
    expect(dump.result).toEqual({
      version: 6,
      flows: Buffer.from('flows'),
      groups: Buffer.from('g'),
      meters: Buffer.from('m'),
    });
  });

  it('answers an echo, and fails with what the switch refuses', () => {
    const dump = new TableDump();
    const echo = { version: 6, type: messageType.echoRequest, xid: 77, body: Buffer.from('x') };
    expect(new OpenFlowDecoder().push(dump.receive(echo)!)).toEqual([
      { ...echo, type: messageType.echoReply },
    ]);
    const refusal = { version: 6, type: messageType.error, xid: 2, body: Buffer.from([0, 1, 0, 5]) };
    expect(() => dump.receive(refusal)).toThrow(/error type 1, code 5/);
  });
});
