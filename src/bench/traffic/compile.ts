import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const sourceDirectory = join(root, 'test/traffic');
const cacheDirectory = join(root, 'build/traffic');
const warnings = ['-Wall', '-Wextra', '-Wconversion', '-Werror'];
const options = ['-std=gnu11', '-D_GNU_SOURCE', '-O2', ...warnings];

/** Compiles the generator, unless that was done for these very sources; returns its path. */
export async function compileGenerator(): Promise<string> {
  const names = (await readdir(sourceDirectory)).filter((name) => /[.][ch]$/.test(name)).sort();
  const hash = createHash('sha256').update(options.join(' '));
  for (const name of names) hash.update(name).update(await readFile(join(sourceDirectory, name)));
  const binary = join(cacheDirectory, `traffic-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(binary)) return binary;
  await mkdir(cacheDirectory, { recursive: true });
  const units = names.filter((name) => name.endsWith('.c')).map((name) => join(sourceDirectory, name));
  // Another process may compile at the same time: the file appears whole or not at all.
  const made = `${binary}.${process.pid}`;
  await promisify(execFile)('gcc', [...options, '-o', made, ...units, '-lm']);
  await rename(made, binary);
  return binary;
}
