import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

import { errorRegistry } from '../../src/errors/index.ts';

const text = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
const sections = new Map(
  text
    .split(/^## /m)
    .slice(1)
    .map((section): [string, string] => {
      const end = section.indexOf('\n');
      return [section.slice(0, end), section.slice(end).trim()];
    }),
);

describe('docs/errors.md', () => {
  it('has a section for each code of the registry, and no other', () => {
    expect([...sections.keys()].sort()).toEqual(Object.keys(errorRegistry).sort());
  });

  it.each(Object.entries(errorRegistry))('says status and exit code of %s', (code, { status, exit }) => {
    expect(sections.get(code)).toMatch(new RegExp(`^HTTP ${status}, exit code ${exit}\\. .{40}`));
  });
});
