import { describe, expect, it } from 'vitest';

import { localUrl, parseListen } from './listen-address.ts';
import { formatTable } from './table.ts';
import { formatBytes, formatDuration } from './units.ts';

describe('figures for people', () => {
  it.each([
    [0, '0 ns'],
    [999, '999 ns'],
    [1500, '1.50 µs'],
    [25_400_000, '25.4 ms'],
    [123_456_789, '123 ms'],
    [2_000_000_000, '2 s'],
    [-1500, '-1.50 µs'],
  ])('%d ns is %s', (ns, text) => {
    expect(formatDuration(ns)).toBe(text);
  });

  it('sizes are in powers of 1024', () => {
    expect([512, 13_000, 2 ** 27, 1.5 * 2 ** 30].map(formatBytes)).toEqual([
      '512 B',
      '12.7 KiB',
      '128 MiB',
      '1.50 GiB',
    ]);
  });
});

describe('a table', () => {
  it('puts text to the left and numbers to the right', () => {
    expect(
      formatTable(
        ['NAME', 'N'],
        [
          ['a', 5],
          ['longer', 10],
        ],
      ),
    ).toBe('NAME     N\na        5\nlonger  10\n');
  });

  it('lets no control character through', () => {
    expect(formatTable(['NAME'], [['a\u001b[31m\nb']])).toBe('NAME\na\\u001b[31m\\nb\n');
  });
});

describe('an address to listen at', () => {
  it('is HOST:PORT, with IPv6 in brackets', () => {
    expect(parseListen('[::1]:0')).toEqual({ host: '::1', port: 0 });
    expect(() => parseListen('::1:7411')).toThrow('is not HOST:PORT');
  });

  it.each([
    ['0.0.0.0', 'http://127.0.0.1:7411'],
    ['::', 'http://[::1]:7411'],
    ['192.0.2.1', 'http://192.0.2.1:7411'],
  ])('%s is reached on this machine as %s', (address, url) => {
    expect(localUrl({ address, port: 7411, family: 'x' })).toBe(url);
  });
});
