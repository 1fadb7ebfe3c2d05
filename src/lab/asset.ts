import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { StaghornError } from '../errors/index.ts';

/**
 * A file of the lab that is not TypeScript: beside this one, or, where this is the compiled one, in the checkout
 * (src/lab and dist/lab are equally deep).
 * @throws StaghornError 'host-unfit' if it is not there
 */
export function assetPath(relative: string): string {
  const candidates = [`./${relative}`, `../../src/lab/${relative}`].map((path) =>
    fileURLToPath(new URL(path, import.meta.url)),
  );
  const found = candidates.find((path) => existsSync(path));
  if (found !== undefined) return found;
  throw new StaghornError('host-unfit', `a file of the lab is missing (looked for ${candidates.join(', ')})`);
}
