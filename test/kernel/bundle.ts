import { copyFile, readdir, symlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { run } from '../../src/lab/command.ts';

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

export interface SuitesToBundle {
  /** Files of tests, from the checkout's root. */
  readonly suites: readonly string[];
  /** Only tests whose full name this regular expression matches. */
  readonly pattern: string | undefined;
  readonly checkout: string;
  readonly folder: string;
}

/** One script with all suites and what they import: in the guest every file costs milliseconds. */
export async function bundleSuites({ suites, pattern, checkout, folder }: SuitesToBundle): Promise<string> {
  const outfile = join(folder, 'suites.mjs');
  const entries = suites.map((suite) => `${JSON.stringify(suite)}: () => import('./${suite}')`);
  await build({
    stdin: {
      contents: `import { runSuites } from './test/kernel/guest/run-suites.ts';
        await runSuites({ ${entries.join(', ')} }, ${JSON.stringify(pattern)});`,
      resolveDir: checkout,
    },
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    alias: { vitest: path('./guest/vitest.ts') },
    external: ['esbuild', 'ioctl-native'],
    // For what is CommonJS within (docs of esbuild, "format: esm").
    banner: {
      js: "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);",
    },
    logLevel: 'warning',
  });
  await copyFile(join(checkout, 'build/Release/staghorn.node'), join(folder, 'staghorn.node'));
  await symlink(join(checkout, 'node_modules'), join(folder, 'node_modules'));
  await compilePrograms(folder);
  return outfile;
}

async function compilePrograms(folder: string): Promise<void> {
  const sources = (await readdir(path('./guest'))).filter((file) => file.endsWith('.c'));
  for (const source of sources) {
    const output = join(folder, basename(source, '.c'));
    await run([
      'gcc',
      '-O2',
      '-Wall',
      '-Wextra',
      '-D_GNU_SOURCE',
      '-o',
      output,
      join(path('./guest'), source),
    ]);
  }
}
