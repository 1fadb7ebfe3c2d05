import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

import type * as Simulation from '../../src/simulation/index.ts';
import { mutationPlugin, type Mutation } from '../mutation.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Lets the simulation of a mutated source run. */
export async function withMutant<T>(
  mutation: Mutation,
  use: (simulation: typeof Simulation) => Promise<T>,
): Promise<T> {
  const plugins = [await mutationPlugin(mutation)];
  // Below the root, where its imports of packages are found; not below what is watched or committed.
  const directory = await mkdtemp(join(root, 'build', 'mutant-'));
  try {
    const outfile = join(directory, 'simulation.mjs');
    await build({
      entryPoints: [join(root, 'src/simulation/index.ts')],
      ...{ outfile, bundle: true, platform: 'node', format: 'esm', packages: 'external', logLevel: 'error' },
      plugins,
    });
    return await use((await import(pathToFileURL(outfile).href)) as typeof Simulation);
  } finally {
    await rm(directory, { recursive: true });
  }
}
