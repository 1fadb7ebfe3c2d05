import { appendFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readGuestLines, readSerial, serialOffset, serialTail } from './serial-log.ts';

const mark = (id: string): string => `{"t":"ready","id":"${id}"}\n`;

describe('reading a serial log', () => {
  let directory = '';
  let path = '';
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'serial-'));
    path = join(directory, 'log');
  });
  afterEach(() => rm(directory, { recursive: true }));

  it('cuts out the time line that a restore abandoned', async () => {
    await writeFile(path, mark('kept'));
    const snapshot = await serialOffset(path);
    await appendFile(path, mark('abandoned'));
    const restore = await serialOffset(path);
    await appendFile(path, mark('after'));
    const ranges = [{ to: snapshot }, { from: restore }];
    const lines = (await Promise.all(ranges.map((range) => readGuestLines(path, range)))).flat();
    expect(lines.map(({ id }) => id)).toEqual(['kept', 'after']);
  });

  it('finds nothing in a log that is not there yet', async () => {
    expect(await readSerial(path)).toBe('');
    expect(await serialOffset(path)).toBe(0);
  });

  it('gives the last lines', async () => {
    await writeFile(path, Array.from({ length: 2000 }, (_, n) => `line ${n}\n`).join(''));
    expect(await serialTail(path, 2)).toBe('line 1998\nline 1999');
  });
});
