import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const longestLines = 400;

/** Every file of the folder that is read as text, by its path from the root. */
function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length));
}

const linesOf = (path: string) => readFileSync(join(root, path), 'utf8').trimEnd().split('\n').length;

describe.each(['src', 'native'])('%s/', (folder) => {
  it(`has no file of more than ${longestLines} lines`, () => {
    const files = sources(folder);
    expect(files.length).toBeGreaterThan(10);
    const tooLong = files
      .map((path) => ({ path, lines: linesOf(path) }))
      .filter(({ lines }) => lines > longestLines);
    expect(tooLong).toEqual([]);
  });
});
