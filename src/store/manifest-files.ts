import { StaghornError } from '../errors/index.ts';
import type { HostManifest } from './manifest.ts';

/** A file that a manifest names. */
export interface NamedFile {
  /** The snapshot that it belongs to; null: the manifest's own. */
  readonly snapshot: string | null;
  readonly file: string;
  readonly bytes: number;
}

/**
 * Every file that a manifest names, each once. The rule of the format: an object with `file` and `bytes` names a file
 * beside the manifest, and one with `snapshot` too names a file of that snapshot (docs/snapshot-format.md).
 * @throws StaghornError 'snapshot-damaged' if a name would lead out of its directory
 */
export function filesNamedBy(manifest: HostManifest): NamedFile[] {
  const found = new Map<string, NamedFile>();
  // Rows of Open vSwitch's database are not ours to read names in.
  collect({ ...manifest, switches: withoutColumns(manifest.switches) }, (named) => {
    requirePlainName(named.file);
    const key = `${named.snapshot ?? ''}/${named.file}`;
    const before = found.get(key);
    if (before === undefined || before.bytes < named.bytes) found.set(key, named);
  });
  return [...found.values()];
}

/** @throws StaghornError 'snapshot-damaged' */
export function requirePlainName(name: string): void {
  const isPlain = !/^\.{0,2}$|[/\0]/.test(name) && Buffer.byteLength(name) <= 255;
  if (!isPlain)
    throw new StaghornError('snapshot-damaged', `${JSON.stringify(name)} is not the name of a file`);
}

function collect(value: unknown, tell: (named: NamedFile) => void): void {
  if (typeof value !== 'object' || value === null) return;
  if (Array.isArray(value)) {
    for (const each of value) collect(each, tell);
    return;
  }
  const { file, bytes, snapshot } = value as Record<string, unknown>;
  if (typeof file === 'string' && typeof bytes === 'number')
    tell({ snapshot: typeof snapshot === 'string' ? snapshot : null, file, bytes });
  for (const each of Object.values(value)) collect(each, tell);
}

function withoutColumns(switches: HostManifest['switches']): unknown {
  return JSON.parse(
    JSON.stringify(switches, (key, value: unknown) => (key === 'columns' ? undefined : value)),
  ) as unknown;
}
