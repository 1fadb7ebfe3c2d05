import { stat } from 'node:fs/promises';

/** More are forgotten: then they are read again. */
const rememberedMax = 4096;

/**
 * Files of RAM whose checksums this agent has found right. Nobody writes to them without changing their times
 * (ctime cannot be set), so they are not read again at each reset.
 */
export class IntactImages {
  readonly #known = new Map<string, string>();

  /** @returns what `check` returns, which is not asked about a file that was in order and has not changed since */
  async unlessKnown(
    file: () => Promise<string>,
    check: () => Promise<string | null>,
  ): Promise<string | null> {
    const before = await identify(file);
    if (before !== null && this.#known.get(before.path) === before.identity) return null;
    const problem = await check();
    const after = await identify(file);
    if (problem === null && before !== null && after?.identity === before.identity) {
      if (this.#known.size >= rememberedMax) this.#known.clear();
      this.#known.set(before.path, before.identity);
    }
    return problem;
  }
}

async function identify(file: () => Promise<string>): Promise<{ path: string; identity: string } | null> {
  try {
    const path = await file();
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return { path, identity: [dev, ino, size, mtimeNs, ctimeNs].join('/') };
  } catch {
    return null; // the check says why
  }
}
