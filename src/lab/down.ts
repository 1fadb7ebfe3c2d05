import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { StaghornError } from '../errors/index.ts';
import { CommandError, run } from './command.ts';
import { labPaths } from './paths.ts';
import { isAlive, kill, processesIn, until } from './processes.ts';
import { isComingUp, readRecord, type LabRecord } from './record.ts';

const KILL_DEADLINE_MS = 15_000;

async function isThere(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

/**
 * Kills whatever is in the namespace, again until there is nothing: a process that was just being started may still
 * come in. Everything that a host runs is in its network namespace, so nothing need be remembered for this.
 */
async function emptyNamespace(path: string): Promise<void> {
  const empty = await until(
    async () => {
      const pids = await processesIn(path);
      for (const pid of pids) kill(pid);
      return pids.length === 0;
    },
    { timeoutMs: KILL_DEADLINE_MS },
  );
  if (!empty) throw new StaghornError('internal', `processes in ${path} do not end`);
}

async function removeNamespace(name: string): Promise<void> {
  const path = join('/run/netns', name);
  if (!(await isThere(path))) return;
  const bound = await run(['nsenter', `--net=${path}`, 'true']).then(
    () => true,
    () => false,
  );
  // A file without a namespace is what `ip netns add` leaves when it is killed half way.
  if (bound) await emptyNamespace(path);
  await run(['ip', 'netns', 'delete', name]).catch((error: unknown) => ignoreMissing(path, error));
}

async function ignoreMissing(path: string, error: unknown): Promise<void> {
  if (await isThere(path)) throw error;
}

async function removeLink(name: string): Promise<void> {
  if (!(await isThere(`/sys/class/net/${name}`))) return;
  try {
    await run(['ip', 'link', 'delete', name]);
  } catch (error) {
    if (!(error instanceof CommandError) || (await isThere(`/sys/class/net/${name}`))) throw error;
  }
}

/** Removes whatever there is of a lab, in the reverse order of its making; the record goes last. */
export async function removeLab(record: LabRecord): Promise<void> {
  for (const { namespace } of record.hosts) await removeNamespace(namespace);
  await removeNamespace(record.wireNamespace);
  for (const link of record.managementLinks) await removeLink(link);
  await removeLink(record.managementBridge);
  await rm(labPaths(record.name).root, { recursive: true, force: true });
}

/**
 * Takes a lab down. After a crash, or an `up` that was killed at any point, nothing of it is left either.
 * @returns false if there was no such lab
 * @throws StaghornError 'conflict' while another process brings it up
 */
export async function labDown(name: string): Promise<boolean> {
  const record = await readRecord(name);
  if (record === undefined) {
    // Killed between making the directory and writing the record: nothing else was made.
    const existed = await isThere(labPaths(name).root);
    if (existed) await rm(labPaths(name).root, { recursive: true, force: true });
    return existed;
  }
  if ((await isComingUp(record)) && record.maker.pid !== process.pid && (await isAlive(record.maker)))
    throw new StaghornError(
      'conflict',
      `process ${record.maker.pid} is bringing the lab "${name}" up; stop it first`,
    );
  await removeLab(record);
  return true;
}
