import { stat } from 'node:fs/promises';
import { dirname, normalize, resolve } from 'node:path';

import { readDescriptors } from '../open-descriptors.ts';

/** A regular file that a process has open (proc(5), /proc/PID/fd). */
export interface OpenFile {
  readonly fd: number;
  /** As the kernel names it; without the word that it is deleted. */
  readonly path: string;
  readonly deleted: boolean;
  readonly identity: string;
}

const deletedSuffix = ' (deleted)';
/** One file for good, whatever its name. */
export const identityOf = ({ dev, ino }: { dev: bigint; ino: bigint }) => `${dev}:${ino}`;

/** Empty for a process that ended. */
export async function readOpenFiles(pid: number): Promise<OpenFile[]> {
  // Sockets, pipes and the like have no path.
  const named = readDescriptors(pid).filter(({ target }) => target.startsWith('/'));
  const files = await Promise.all(
    named.map(async ({ fd, target }): Promise<OpenFile | null> => {
      try {
        const stats = await stat(`/proc/${pid}/fd/${fd}`, { bigint: true });
        if (!stats.isFile()) return null;
        const deleted = target.endsWith(deletedSuffix) && stats.nlink === 0n;
        const name = deleted ? target.slice(0, -deletedSuffix.length) : target;
        return { fd, path: name, deleted, identity: identityOf(stats) };
      } catch {
        // It was closed while it was looked at.
        return null;
      }
    }),
  );
  return files.filter((file) => file !== null);
}

export interface ResolvedFile {
  /** Absolute, as QEMU opened it: an image may name others relative to its own place. */
  readonly path: string;
  readonly file: OpenFile;
}

/** The open file behind a file name of QEMU's; a daemonized QEMU has left the directory that it was started in. */
export async function resolveOpenFile(
  name: string,
  cwd: string,
  files: readonly OpenFile[],
): Promise<ResolvedFile | null> {
  const path = resolve(cwd, name);
  const identity = await stat(path, { bigint: true }).then(identityOf, () => null);
  const same = files.find((file) => file.identity === identity);
  if (same !== undefined) return { path, file: same };
  const removed = files.find((file) => file.deleted && file.path === path);
  if (removed !== undefined) return { path, file: removed };
  if (name.startsWith('/')) return null;
  const tails = new Set(
    files
      .filter((file) => !file.deleted && file.path.endsWith(`/${normalize(name)}`))
      .map(({ path: at }) => at),
  );
  const [only] = tails;
  return tails.size === 1 ? { path: only!, file: files.find(({ path: at }) => at === only)! } : null;
}

/** Where an image's own name for what is below it leads. */
export const besideImage = (image: string, name: string) => resolve(dirname(image), name);
