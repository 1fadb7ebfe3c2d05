import { appendFile, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { IntactImages } from './intact-images.ts';

describe('what is known of images of RAM', () => {
  let directory: string;
  let file: string;
  let checks: number;
  const images = new IntactImages();
  const ask = (problem: string | null = null) =>
    images.unlessKnown(
      () => Promise.resolve(file),
      () => {
        checks += 1;
        return Promise.resolve(problem);
      },
    );

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'staghorn-intact-'));
    file = join(directory, 'a.ram');
    checks = 0;
    await writeFile(file, 'pages');
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('spares a second look at a file that was in order', async () => {
    expect([await ask(), await ask()]).toEqual([null, null]);
    expect(checks).toBe(1);
  });

  it('does not outlive a change, not even one that sets the time of modification back', async () => {
    const at = new Date(1_700_000_000_000);
    await utimes(file, at, at);
    await ask();
    await writeFile(file, 'other');
    await utimes(file, at, at);
    expect(await ask('damaged')).toBe('damaged');
    await appendFile(file, '!');
    await ask();
    expect(checks).toBe(3);
  });

  it('is nothing of a damaged file', async () => {
    expect([await ask('damaged'), await ask('damaged')]).toEqual(['damaged', 'damaged']);
    expect(checks).toBe(2);
  });

  it('is nothing of a file that is not there', async () => {
    await rm(file);
    expect(await ask('gone')).toBe('gone');
  });
});
