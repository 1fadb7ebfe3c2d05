import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { packCpio } from './cpio.ts';

it('packs what cpio unpacks again, whatever the lengths of names and contents', () => {
  const directory = mkdtempSync(join(tmpdir(), 'cpio-'));
  try {
    const files = [0, 1, 2, 3, 4, 5].map((n) => ({
      path: `d/${'x'.repeat(n + 1)}`,
      mode: 0o100755,
      data: Buffer.alloc(n * 3, n),
    }));
    const archive = packCpio([{ path: 'd', mode: 0o040755 }, ...files]);
    execFileSync('cpio', ['-idm', '--quiet'], { cwd: directory, input: archive });
    for (const { path, data } of files) expect(readFileSync(join(directory, path))).toEqual(data);
    expect(statSync(join(directory, 'd/x')).mode & 0o777).toBe(0o755);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
