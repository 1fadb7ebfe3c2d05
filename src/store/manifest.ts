import { z } from 'zod';

import { StaghornError } from '../errors/index.ts';
import { layersMax } from '../native/ram.ts';
import { instantNs } from '../protocol/instant.ts';
import { snapshotId } from '../protocol/names.ts';
import { nic, saveMethod } from '../protocol/vm.ts';
import { storedDisk } from './stored-disks.ts';
import { storedFile, type StoredFile } from './stored-file.ts';
import { storedSwitches } from './stored-switches.ts';

export type { StoredFile };

/**
 * The manifest of a snapshot on one host: what is stored, and everything that a restore needs to know
 * (docs/architecture.md#the-store). A reader refuses a format or version that it does not know.
 */
export const manifestFormat = 'staghorn-snapshot';
export const manifestVersion = 3;
/** Version 1 has nothing of the switches; 1 and 2 need no other snapshot. */
const readableVersions = [1, 2, manifestVersion] as const;

/** A file that has pages of layered RAM. */
export const storedLayer = z.strictObject({
  /** What the places call it. 1 is the snapshot's own. */
  number: z.int().min(1).max(layersMax),
  /** Null: this one. */
  snapshot: snapshotId.nullable(),
  file: z.string(),
  /** How long it is at least. */
  bytes: z.int().nonnegative(),
});
export type StoredLayer = z.infer<typeof storedLayer>;

/**
 * Guest RAM of `bytes`, with a CRC-32C (RFC 3720) of each chunk of it, as base64 of little-endian u32. In full, `file`
 * is a sparse file of it; in layers, `file` has the pages that no other layer has, and `places` says where each page is.
 */
export const storedRam = z.strictObject({
  form: z.enum(['full', 'layered']).default('full'),
  file: z.string(),
  bytes: z.int().positive(),
  storedBytes: z.int().nonnegative(),
  chunkBytes: z.int().positive(),
  chunkCrc32c: z.base64(),
  /** What a later snapshot is compared with; null: it cannot be. */
  identities: storedFile.nullable().default(null),
  places: storedFile.nullable().default(null),
  /** Those in which pages are. */
  layers: z.array(storedLayer).default([]),
});
export type StoredRam = z.infer<typeof storedRam>;

export const storedVm = z.strictObject({
  name: z.string(),
  exe: z.string(),
  /** Without argv[0], and without what a restore adds. */
  args: z.array(z.string()),
  cwd: z.string(),
  uid: z.int(),
  gid: z.int(),
  qmpSocket: z.string(),
  qemuVersion: z.string(),
  machineType: z.string(),
  accelerator: z.string(),
  method: saveMethod,
  /** False: its owner had paused it, and it stays so after a restore. */
  running: z.boolean(),
  stoppedAtNs: instantNs,
  resumedAtNs: instantNs,
  /** How much real time restores had hidden from it before. */
  hiddenNs: instantNs.default(0n),
  nics: z.array(nic),
  ram: storedRam,
  /** RAM in memory objects beside main memory: NUMA nodes and DIMMs; `device` is what a restore has to plug in. */
  memory: z
    .array(z.strictObject({ id: z.string(), device: z.string().nullable(), ram: storedRam }))
    .default([]),
  state: storedFile,
  /** RAM blocks other than main memory that are not in the device state (video memory). */
  blocks: z.array(storedFile.extend({ name: z.string() })),
  disks: z.array(storedDisk).default([]),
});
export type StoredVm = z.infer<typeof storedVm>;

export const hostManifest = z.strictObject({
  format: z.literal(manifestFormat),
  version: z.literal(readableVersions),
  snapshot: snapshotId,
  experiment: z.string(),
  createdAt: z.iso.datetime(),
  host: z.strictObject({ hostname: z.string(), kernel: z.string(), staghorn: z.string() }),
  vms: z.array(storedVm),
  frames: storedFile.extend({ count: z.int().nonnegative() }),
  /** Null in version 1. */
  switches: storedSwitches.nullable(),
  /** Snapshots of this store whose files this one reads: they stay until it goes. */
  needs: z.array(snapshotId).default([]),
});
export type HostManifest = z.infer<typeof hostManifest>;

/** The files that hold what its switches were set to. */
export function switchFilesOf({ switches }: HostManifest): StoredFile[] {
  return (switches?.bridges ?? []).flatMap(({ openFlow }) =>
    openFlow === null ? [] : [openFlow.flows, openFlow.groups, openFlow.meters],
  );
}

export function formatManifest(manifest: HostManifest): string {
  return `${JSON.stringify(z.encode(hostManifest, manifest), null, 2)}\n`;
}

/** @throws StaghornError 'snapshot-damaged' or 'snapshot-unfit', naming `path`. */
export function parseManifest(text: string, path: string): HostManifest {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new StaghornError('snapshot-damaged', `${path} is not JSON`, { cause: error });
  }
  const head = z.looseObject({ format: z.literal(manifestFormat), version: z.int() }).safeParse(json);
  const version = head.data?.version;
  if (version !== undefined && !readableVersions.some((known) => known === version)) {
    throw new StaghornError(
      'snapshot-unfit',
      `${path} has format version ${version}; this Staghorn reads versions ${readableVersions.join(' and ')}`,
    );
  }
  const current = version === 1 ? { ...head.data, switches: null } : json;
  const parsed = z.safeDecode(hostManifest, current as z.input<typeof hostManifest>);
  if (!parsed.success) {
    throw new StaghornError(
      'snapshot-damaged',
      `${path} is not a manifest: ${z.prettifyError(parsed.error)}`,
    );
  }
  return parsed.data;
}
