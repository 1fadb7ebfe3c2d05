import { z } from 'zod';

import { StaghornError } from '../errors/index.ts';
import { resourceName, snapshotId } from '../protocol/names.ts';
import { snapshot } from '../protocol/resources.ts';

/**
 * The first entry of a portable archive: what the catalog has of the snapshot, and which parts follow
 * (docs/snapshot-format.md#the-archive). A reader refuses a format or version that it does not know.
 */
export const archiveFormat = 'staghorn-archive';
export const archiveVersion = 2;
/** Disk images are not in it. */
export const firstVersion = 1;
const readableVersions = [firstVersion, archiveVersion] as const;
export const archiveHeadName = 'staghorn-archive.json';
export const archiveHeadMaxBytes = 64 * 1024 * 1024;
export const archiveMediaType = 'application/zstd';

export const archiveHead = z.strictObject({
  format: z.literal(archiveFormat),
  version: z.literal(readableVersions),
  snapshot,
  /** The parts in their order; each entry of one is called PART/FILE. */
  parts: z
    .array(z.strictObject({ host: resourceName, manifestSha256: z.string().regex(/^[0-9a-f]{64}$/) }))
    .min(1)
    .max(1000),
});
export type ArchiveHead = z.infer<typeof archiveHead>;

export function formatHead(head: ArchiveHead): Buffer {
  return Buffer.from(`${JSON.stringify(head, null, 2)}\n`);
}

/** @throws StaghornError 'snapshot-damaged' or 'snapshot-unfit' */
export function parseHead(text: string): ArchiveHead {
  const json = readJson(text);
  const known = z.looseObject({ format: z.literal(archiveFormat), version: z.int() }).safeParse(json);
  const version = known.data?.version;
  if (version !== undefined && !readableVersions.some((one) => one === version)) {
    const words = `the archive has format version ${version}; this Staghorn reads versions ${readableVersions.join(' and ')}`;
    throw new StaghornError('snapshot-unfit', words);
  }
  const parsed = archiveHead.safeParse(json);
  if (!parsed.success)
    throw new StaghornError('snapshot-damaged', `${archiveHeadName}: ${z.prettifyError(parsed.error)}`);
  const hosts = parsed.data.parts.map(({ host }) => host);
  if (new Set(hosts).size !== hosts.length || !snapshotId.safeParse(parsed.data.snapshot.id).success)
    throw new StaghornError('snapshot-damaged', `${archiveHeadName} names a host twice`);
  return parsed.data;
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new StaghornError('snapshot-damaged', `${archiveHeadName} is not JSON`, { cause: error });
  }
}
