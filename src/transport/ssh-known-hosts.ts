import { createHash, createHmac } from 'node:crypto';

/** One line of a known_hosts file, sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". */
export interface KnownHostLine {
  readonly file: string;
  readonly line: number;
  readonly marker: 'revoked' | 'cert-authority' | undefined;
  readonly keyType: string;
  readonly key: Buffer;
  /** Whether the line is about a host, named as in the file: "name", or "[name]:port" where the port is not 22. */
  matches(name: string): boolean;
}

/** The lines that can be used; comments, blanks and malformed lines are passed over, as ssh does. */
export function parseKnownHosts(text: string, file: string): KnownHostLine[] {
  return text.split('\n').flatMap((raw, index) => parseLine(raw.trim(), file, index + 1) ?? []);
}

function parseLine(raw: string, file: string, line: number): KnownHostLine | undefined {
  if (raw === '' || raw.startsWith('#')) return undefined;
  const fields = raw.split(/[ \t]+/);
  const markerField = fields[0]?.startsWith('@') ? fields.shift() : undefined;
  const marker = markerField?.slice(1);
  if (marker !== undefined && marker !== 'revoked' && marker !== 'cert-authority') return undefined;
  const [names, keyType, encoded] = fields;
  if (names === undefined || keyType === undefined || encoded === undefined) return undefined;
  const key = Buffer.from(encoded, 'base64');
  if (keyTypeOf(key) !== keyType) return undefined;
  return { file, line, marker, keyType, key, matches: nameMatcher(names) };
}

function nameMatcher(names: string): (name: string) => boolean {
  const hashed = /^\|1\|([A-Za-z0-9+/=]+)\|([A-Za-z0-9+/=]+)$/.exec(names);
  if (hashed === null) return (name) => matchesPatterns(names, name);
  const salt = Buffer.from(hashed[1] ?? '', 'base64');
  const digest = Buffer.from(hashed[2] ?? '', 'base64');
  return (name) => createHmac('sha1', salt).update(name.toLowerCase()).digest().equals(digest);
}

/** A list of patterns with "*", "?" and "!": a negated pattern that matches rules the whole line out. */
function matchesPatterns(list: string, name: string): boolean {
  const patterns = list.split(',').filter((pattern) => pattern !== '' && pattern !== '!');
  const rulesOut = (pattern: string) => pattern.startsWith('!') && matchesPattern(pattern.slice(1), name);
  if (patterns.some(rulesOut)) return false;
  return patterns.some((pattern) => !pattern.startsWith('!') && matchesPattern(pattern, name));
}

// Not a RegExp: "[host]:port" is full of its syntax, and a line of many stars must not take exponential time.
function matchesPattern(pattern: string, name: string): boolean {
  const wanted = pattern.toLowerCase();
  const given = name.toLowerCase();
  let at = 0;
  let star = -1;
  let retry = 0;
  for (let index = 0; index < given.length;) {
    if (wanted[at] === '*') {
      star = at;
      retry = index;
      at += 1;
    } else if (at < wanted.length && (wanted[at] === '?' || wanted[at] === given[index])) {
      at += 1;
      index += 1;
    } else if (star >= 0) {
      retry += 1;
      index = retry;
      at = star + 1;
    } else {
      return false;
    }
  }
  return /^\**$/.test(wanted.slice(at));
}

/** The type that a public key blob begins with (RFC 4253, section 6.6); empty if it is no key. */
export function keyTypeOf(key: Buffer): string {
  if (key.length < 4) return '';
  const lengthBytes = key.readUInt32BE(0);
  return lengthBytes > key.length - 4 ? '' : key.toString('latin1', 4, 4 + lengthBytes);
}

/** As `ssh-keygen -l` prints it. */
export function fingerprint(key: Buffer): string {
  return `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`;
}
