import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { StaghornError, messageOf } from '../errors/index.ts';

/** A local file that goes to hosts. */
export interface BundleFile {
  /** Its name on the host: letters, digits, ".", "_" and "-". */
  readonly name: string;
  readonly path: string;
  /** Permission bits on the host; default 0644. */
  readonly mode?: number | undefined;
}

/** Files with their digests; `hash` names this very set of names, modes and contents. */
export interface Bundle {
  readonly hash: string;
  readonly files: readonly (Required<BundleFile> & { readonly sha256: string })[];
}

// By path, size and times: a build that replaces a file changes at least one of them.
const digests = new Map<string, { readonly stamp: string; readonly sha256: Promise<string> }>();

/** @throws StaghornError 'invalid-input' if a file cannot be read, or on a name that is no plain name */
export async function describeBundle(files: readonly BundleFile[]): Promise<Bundle> {
  const described = await Promise.all(
    files.map(async ({ name, path, mode }) => {
      if (!/^[A-Za-z0-9_-][A-Za-z0-9._-]*$/.test(name)) {
        throw new StaghornError('invalid-input', `"${name}" cannot be the name of a file of the agent`);
      }
      return { name, path, mode: mode ?? 0o644, sha256: await digestOf(path) };
    }),
  );
  const hash = createHash('sha256');
  for (const { name, mode, sha256 } of described) hash.update(`${mode.toString(8)} ${sha256} ${name}\n`);
  return { hash: hash.digest('hex'), files: described };
}

async function digestOf(path: string): Promise<string> {
  try {
    const { size, mtimeMs, ctimeMs, ino } = await stat(path);
    const stamp = [size, mtimeMs, ctimeMs, ino].join(' ');
    const known = digests.get(path);
    if (known?.stamp === stamp) return await known.sha256;
    const sha256 = digestFile(path);
    digests.set(path, { stamp, sha256 });
    return await sha256;
  } catch (error) {
    digests.delete(path);
    throw new StaghornError(
      'invalid-input',
      `cannot read ${path}, a file of the agent: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

async function digestFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}
