import { createRequire } from 'node:module';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * Loads the native addon: beside the bundle where the agent runs, in `build/Release` of the checkout
 * otherwise (src/native and dist/native are equally deep).
 */
export function loadAddon(): unknown {
  const candidates = ['./staghorn.node', '../../build/Release/staghorn.node'].map((relative) =>
    fileURLToPath(new URL(relative, import.meta.url)),
  );
  const found = candidates.find((path) => existsSync(path));
  if (found === undefined) {
    throw new Error(`the native addon is missing (looked for ${candidates.join(', ')}); run "npm run build"`);
  }
  return createRequire(import.meta.url)(found);
}
