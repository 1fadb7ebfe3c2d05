import { describe, expect, it } from 'vitest';

import { preferredType } from './accept.ts';

const offered: [string, string] = ['application/json', 'application/x-pcapng'];

describe('content negotiation', () => {
  it.each([
    [undefined, 'application/json'],
    ['*/*', 'application/json'],
    ['application/*', 'application/json'],
    ['application/x-pcapng', 'application/x-pcapng'],
    ['Application/X-Pcapng;q=0.5', 'application/x-pcapng'],
    ['application/json;q=0.1, application/x-pcapng', 'application/x-pcapng'],
    ['application/json;q=0, */*', 'application/x-pcapng'],
    ['text/html, */*;q=0.1', 'application/json'],
  ])('takes for "Accept: %s" %s', (accept, type) => {
    expect(preferredType(accept, offered)).toBe(type);
  });

  it.each(['text/html', 'application/json;q=0', '*/*;q=0', 'nonsense'])('has nothing for %s', (accept) => {
    expect(() => preferredType(accept, offered)).toThrow(expect.objectContaining({ code: 'not-acceptable' }));
  });
});
