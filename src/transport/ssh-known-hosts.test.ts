import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fingerprint, parseKnownHosts } from './ssh-known-hosts.ts';

function key(type: string): string {
  const name = Buffer.from(type);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(name.length);
  return Buffer.concat([length, name, Buffer.alloc(32, type)]).toString('base64');
}
const ed25519 = `ssh-ed25519 ${key('ssh-ed25519')}`;
const matches = (names: string, host: string) =>
  parseKnownHosts(`${names} ${ed25519}`, 'f')[0]?.matches(host);

describe('a known_hosts file', () => {
  it('has lines with names, lists, wildcards, negations and ports', () => {
    expect(matches('host', 'HOST')).toBe(true);
    expect(matches('host', 'host2')).toBe(false);
    expect(matches('a,b,192.0.2.1', '192.0.2.1')).toBe(true);
    expect(matches('*.example.org', 'x.example.org')).toBe(true);
    expect(matches('*.example.org', 'example.org')).toBe(false);
    expect(matches('node?', 'node7')).toBe(true);
    expect(matches('*.example.org,!bad.example.org', 'bad.example.org')).toBe(false);
    expect(matches('!bad.example.org', 'good.example.org')).toBe(false);
    expect(matches('[host]:2222', '[host]:2222')).toBe(true);
    expect(matches('[host]:2222', 'host')).toBe(false);
    expect(matches('[*]:22??', '[host]:2222')).toBe(true);
    expect(matches('2001:db8::1', '2001:db8::1')).toBe(true);
  });

  it('has hashed names', () => {
    // HMAC-SHA1 of "example.org" under the salt of twenty bytes 0x01, by OpenSSL.
    const salt = Buffer.alloc(20, 1).toString('base64');
    const line = `|1|${salt}|BZnIZDy7LFmWT01C0tVIYmthBlY= ${ed25519}\n`;
    const matchesHashed = (host: string) => parseKnownHosts(line, 'f')[0]?.matches(host);
    expect([matchesHashed('example.org'), matchesHashed('example.com')]).toEqual([true, false]);
  });

  it('has markers, and lines that are passed over but counted', () => {
    const text = [
      '# comment',
      '',
      `@revoked * ${ed25519}`,
      `@cert-authority *.example.org ${ed25519} a comment`,
      `@unknown * ${ed25519}`,
      'host ssh-rsa',
      'host 1024 35 1234567',
      `host ssh-rsa ${key('ssh-ed25519')}`,
      `  host\t${ed25519}`,
    ].join('\n');
    const lines = parseKnownHosts(text, 'f');
    expect(lines.map(({ line, marker }) => [line, marker])).toEqual([
      [3, 'revoked'],
      [4, 'cert-authority'],
      [9, undefined],
    ]);
  });

  it('never makes the parser throw, and its patterns never take long', () => {
    fc.assert(fc.property(fc.string(), (text) => void parseKnownHosts(text, 'f')));
    expect(matches(`${'*a'.repeat(60)}b`, 'a'.repeat(250))).toBe(false);
  });
});

describe('a fingerprint', () => {
  it('is the SHA-256 of the key, as ssh-keygen prints it', () => {
    // The SHA-256 of nothing, without its padding.
    expect(fingerprint(Buffer.alloc(0))).toBe('SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU');
  });
});
