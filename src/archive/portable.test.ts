import { describe, expect, it } from 'vitest';

import { archiveFormat, archiveVersion, parseHead } from './portable.ts';

describe('the head of an archive', () => {
  it.each([0, archiveVersion + 1])('of version %i, which is not known, is refused and says so', (version) => {
    const head = JSON.stringify({ format: archiveFormat, version, images: 'of another kind' });
    expect(() => parseHead(head)).toThrow(
      expect.objectContaining({
        code: 'snapshot-unfit',
        message: `the archive has format version ${version}; this Staghorn reads versions 1 and 2`,
      }),
    );
  });

  it('of another format is no head', () => {
    const head = JSON.stringify({ format: 'other', version: archiveVersion });
    expect(() => parseHead(head)).toThrow(expect.objectContaining({ code: 'snapshot-damaged' }));
  });
});
