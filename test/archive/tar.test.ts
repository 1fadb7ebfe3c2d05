import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { TarDecoder, tarEnd, tarHeader, tarPadding } from '../../src/archive/tar.ts';

interface Entry {
  readonly name: string;
  readonly data: Buffer;
}

const pack = (entries: readonly Entry[]) =>
  Buffer.concat([
    ...entries.flatMap(({ name, data }) => [
      tarHeader({ name, bytes: data.length }),
      data,
      tarPadding(data.length),
    ]),
    tarEnd,
  ]);

function unpack(bytes: Buffer, pieceBytes = bytes.length): Entry[] {
  const decoder = new TarDecoder();
  const entries: { name: string; data: Buffer }[] = [];
  for (let at = 0; at < bytes.length; at += pieceBytes) {
    for (const event of decoder.push(bytes.subarray(at, at + pieceBytes))) {
      if (event.kind === 'file') entries.push({ name: event.file.name, data: Buffer.alloc(0) });
      const last = entries.at(-1);
      if (event.kind === 'data' && last !== undefined) last.data = Buffer.concat([last.data, event.data]);
    }
  }
  decoder.end();
  return entries;
}

const name = fc.stringMatching(/^[a-zA-Z0-9][a-zA-Z0-9._ -]{0,60}$/);
const entry = fc.record({
  name: fc.tuple(name, name).map(([folder, file]) => `${folder}/${file}`),
  data: fc.uint8Array({ maxLength: 1_500 }).map((bytes) => Buffer.from(bytes)),
});

describe('a tar archive', () => {
  it('comes back as it was packed, however it is cut into pieces', () => {
    fc.assert(
      fc.property(
        fc.array(entry, { maxLength: 5 }),
        fc.integer({ min: 1, max: 2_000 }),
        (entries, pieceBytes) => {
          expect(unpack(pack(entries), pieceBytes)).toEqual(entries);
        },
      ),
    );
  });

  it('is refused wherever it is cut off', () => {
    const whole = pack([{ name: 'a/b', data: Buffer.from('content') }]);
    for (let length = 0; length < whole.length - 511; length += 37)
      expect(() => unpack(whole.subarray(0, length), 512)).toThrow(/ends too early/);
  });

  it('is never read as anything else when bytes of a header are changed', () => {
    const whole = pack([{ name: 'a', data: Buffer.from('content') }]);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 499 }), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const changed = Buffer.from(whole);
        changed[at] = changed[at]! ^ flip;
        expect(() => unpack(changed)).toThrow(/not an archive that Staghorn reads/);
      }),
    );
  });

  it.each([154, 155])('is not read when byte %i, which ends a checksum, is changed', (at) => {
    const whole = pack([{ name: 'a', data: Buffer.from('content') }]);
    whole[at] = whole[at]! ^ 1;
    expect(() => unpack(whole)).toThrow(/not an archive that Staghorn reads/);
  });

  it('keeps sizes beyond those that octal digits hold', () => {
    const bytes = 20 * 1024 ** 3;
    const [event] = new TarDecoder().push(tarHeader({ name: 'VM.ram', bytes }));
    expect(event).toEqual({ kind: 'file', file: { name: 'VM.ram', bytes } });
  });
});

describe('beside the tar command', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'staghorn-tar-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const tar = (...args: string[]) => execFileSync('tar', args, { cwd: directory, maxBuffer: 2 ** 24 });

  it('is what it reads, long names included', () => {
    const entries = [
      { name: `${'h'.repeat(120)}/needs/20261122T120000Z-abcdef/VM.ram`, data: Buffer.from('one') },
      { name: 'h/empty', data: Buffer.alloc(0) },
    ];
    writeFileSync(join(directory, 'a.tar'), pack(entries));
    tar('xf', 'a.tar');
    expect(tar('tf', 'a.tar').toString().trim().split('\n')).toEqual(entries.map((each) => each.name));
    expect(execFileSync('cat', [join(directory, entries[0]!.name)]).toString()).toBe('one');
  });

  it('reads what it writes as ustar, and refuses links and directories', () => {
    mkdirSync(join(directory, 'd'));
    writeFileSync(join(directory, 'd/f'), 'content');
    symlinkSync('/etc/passwd', join(directory, 'd/link'));
    expect(unpack(tar('cf', '-', '--format=ustar', 'd/f'))).toEqual([
      { name: 'd/f', data: Buffer.from('content') },
    ]);
    expect(() => unpack(tar('cf', '-', '--format=ustar', 'd/link'))).toThrow(/no regular file \(type "2"\)/);
    expect(() => unpack(tar('cf', '-', '--format=ustar', 'd'))).toThrow(/no regular file \(type "5"\)/);
    expect(() => unpack(tar('cf', '-', '--format=gnu', 'd/f'))).toThrow(/not of the format ustar/);
    expect(() => unpack(tar('cf', '-', '--format=posix', '--pax-option=comment=x', 'd/f'))).toThrow(
      /type "g"/,
    );
  });
});
