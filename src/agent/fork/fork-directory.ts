import { chown, mkdir, open, readdir, readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';

import { StaghornError } from '../../errors/index.ts';
import type { HostManifest } from '../../store/manifest.ts';
import type { AgentDirectories } from '../agent-directories.ts';
import { forkOfName } from './names.ts';

/** What a fork has on this host, written down before any of it is made. */
const forkRecord = z.strictObject({
  version: z.literal(1),
  vms: z.array(z.string()),
  taps: z.array(z.string()),
  bridges: z.array(z.string()),
});
export type ForkRecord = z.infer<typeof forkRecord>;

const recordFile = 'fork.json';

/** Beside the snapshots, for it must be there after a reboot: forks are restored in place too. */
const forksDirectory = ({ store }: AgentDirectories) => join(dirname(store), 'forks');

export const forkDirectory = (directories: AgentDirectories, fork: number): string =>
  join(forksDirectory(directories), `f${fork}`);

/**
 * Takes a fork's number on this host, and makes the directories that its VMs write to.
 * @param manifest of the fork
 * @throws StaghornError 'conflict' if there is such a fork
 */
export async function makeForkDirectory(directory: string, manifest: HostManifest): Promise<void> {
  await mkdir(dirname(directory), { recursive: true, mode: 0o755 });
  await mkdir(directory, { mode: 0o755 }).catch((error: unknown) => {
    throw new StaghornError('conflict', `there is a fork in ${directory} already`, { cause: error });
  });
  const record: ForkRecord = {
    version: 1,
    vms: manifest.vms.map(({ name }) => name),
    taps: manifest.vms.flatMap(({ nics }) => nics.map(({ tap }) => tap)),
    bridges: (manifest.switches?.bridges ?? []).map(({ name }) => name),
  };
  await writeSynced(join(directory, recordFile), `${JSON.stringify(record)}\n`);
  for (const { qmpSocket, uid, gid } of manifest.vms) {
    const own = dirname(qmpSocket);
    await mkdir(own, { mode: 0o700 });
    await chown(own, uid, gid);
  }
}

async function writeSynced(path: string, text: string): Promise<void> {
  const file = await open(path, 'w', 0o600);
  try {
    await file.writeFile(text);
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** Null if this host has nothing of it. */
export async function readForkRecord(directory: string): Promise<ForkRecord | null> {
  const text = await readFile(join(directory, recordFile), 'utf8').catch(() => null);
  return text === null ? null : forkRecord.parse(JSON.parse(text));
}

export async function removeForkDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true });
}

/** Numbers of the forks that have a directory on this host. */
export async function listForks(directories: AgentDirectories): Promise<number[]> {
  const names = await readdir(forksDirectory(directories)).catch(() => []);
  return names.flatMap((name) => forkOfName(`.${name}`) ?? []);
}
