import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

import type * as Simulation from '../../src/simulation/index.ts';
import type { Rule } from '../../src/simulation/index.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A mistake in the protocol: some text of a source in another one's place. */
export interface Mutation {
  readonly mistake: string;
  readonly file: string;
  /** Occurs exactly once. */
  readonly text: string;
  readonly instead: string;
  /** The rule that it breaks. */
  readonly breaks: Rule;
}

/** Lets the simulation of a mutated source run. */
export async function withMutant<T>(
  mutation: Mutation,
  use: (simulation: typeof Simulation) => Promise<T>,
): Promise<T> {
  const path = join(root, mutation.file);
  const parts = (await readFile(path, 'utf8')).split(mutation.text);
  if (parts.length !== 2) throw new Error(`${mutation.file} has ${parts.length - 1} times: ${mutation.text}`);
  // Below the root, where its imports of packages are found; not below what is watched or committed.
  const directory = await mkdtemp(join(root, 'build', 'mutant-'));
  try {
    const outfile = join(directory, 'simulation.mjs');
    await build({
      entryPoints: [join(root, 'src/simulation/index.ts')],
      ...{ outfile, bundle: true, platform: 'node', format: 'esm', packages: 'external', logLevel: 'error' },
      plugins: [
        {
          name: 'mutation',
          setup(build) {
            build.onLoad({ filter: /[.]ts$/ }, (source) =>
              source.path === path ? { contents: parts.join(mutation.instead), loader: 'ts' } : null,
            );
          },
        },
      ],
    });
    return await use((await import(pathToFileURL(outfile).href)) as typeof Simulation);
  } finally {
    await rm(directory, { recursive: true });
  }
}
