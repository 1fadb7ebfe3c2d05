import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Plugin } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));

/** A mistake: some text of a source in another one's place. A test that cannot tell is worth nothing. */
export interface Mutation {
  readonly mistake: string;
  /** From the root of the checkout. */
  readonly file: string;
  /** Occurs exactly once. */
  readonly text: string;
  readonly instead: string;
}

/** Makes the mistake in what esbuild bundles. */
export async function mutationPlugin({ file, text, instead }: Mutation): Promise<Plugin> {
  const path = join(root, file);
  const parts = (await readFile(path, 'utf8')).split(text);
  if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times: ${text}`);
  return {
    name: 'mutation',
    setup(build) {
      build.onLoad({ filter: /[.]ts$/ }, (source) =>
        source.path === path ? { contents: parts.join(instead), loader: 'ts' } : null,
      );
    },
  };
}
