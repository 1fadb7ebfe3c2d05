import { describe, expect, it } from 'vitest';

import { listenersOf, parseMeminfo } from './host-fit.ts';

describe('what a host says of itself', () => {
  it('names the sockets that accept connections, and no others', () => {
    const text = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 20001 /run/a.qmp
0000000000000000: 00000003 00000000 00000000 0001 03 20002 /run/connected
0000000000000000: 00000002 00000000 00010000 0001 01 20003
0000000000000000: 00000002 00000000 00010000 0001 01 20004 @abstract
`;
    expect(listenersOf(text)).toEqual(new Set(['/run/a.qmp', '@abstract']));
  });

  it('counts memory in bytes, with what can be swapped out', () => {
    const text = 'MemTotal:  1000 kB\nMemFree:  10 kB\nMemAvailable:  400 kB\nSwapTotal:  24 kB\n';
    expect(parseMeminfo(text)).toEqual({ totalBytes: 1024 * 1024, availableBytes: 400 * 1024 });
  });
});
