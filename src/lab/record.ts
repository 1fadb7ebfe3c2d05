import { mkdir, readFile, readdir, rename, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { StaghornError } from '../errors/index.ts';
import { LAB_ROOT, labPaths } from './paths.ts';
import { shapedDeviceSchema } from './shaped-devices.ts';
import { identify, isAlive, thisProcess } from './processes.ts';

/**
 * What a lab has made or is about to make. It is written before anything else, and every name in it is known in
 * advance, so that `down` finds everything, whenever `up` came to its end.
 */
const recordSchema = z.strictObject({
  version: z.literal(1),
  name: z.string(),
  phase: z.enum(['coming-up', 'up']),
  maker: z.strictObject({ pid: z.int(), startTicks: z.string() }),
  managementSubnet: z.string(),
  managementBridge: z.string(),
  managementLinks: z.array(z.string()),
  wireNamespace: z.string(),
  hosts: z.array(z.strictObject({ name: z.string(), namespace: z.string(), managementAddress: z.string() })),
  vms: z.array(z.strictObject({ name: z.string(), host: z.string() })),
  shaped: z.array(shapedDeviceSchema).default([]),
});
export type LabRecord = z.infer<typeof recordSchema>;

export async function readRecord(lab: string): Promise<LabRecord | undefined> {
  const text = await readFile(labPaths(lab).record, 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const parsed = recordSchema.safeParse(JSON.parse(text));
  if (parsed.success) return parsed.data;
  throw new StaghornError(
    'internal',
    `${labPaths(lab).record} is not a lab's record: ${parsed.error.message}`,
  );
}

export async function allRecords(): Promise<LabRecord[]> {
  const names = await readdir(LAB_ROOT).catch(() => []);
  const records = await Promise.all(names.map((name) => readRecord(name)));
  return records.filter((record) => record !== undefined);
}

export async function writeRecord(record: LabRecord): Promise<void> {
  const { record: path } = labPaths(record.name);
  await writeFile(`${path}.new`, `${JSON.stringify(record, null, 2)}\n`);
  await rename(`${path}.new`, path);
}

/** Whether the process that brings the lab up is still at it. */
export async function isComingUp(record: LabRecord): Promise<boolean> {
  return record.phase === 'coming-up' && (await isAlive(record.maker));
}

/**
 * Takes the lab's directory for this process: who makes the directory has the lab.
 * @throws StaghornError 'conflict' if the lab is there already, up or half-made
 */
export async function claimLab(record: Omit<LabRecord, 'version' | 'phase' | 'maker'>): Promise<LabRecord> {
  const { root } = labPaths(record.name);
  await mkdir(LAB_ROOT, { recursive: true });
  try {
    await mkdir(root, { mode: 0o700 });
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    throw await explainClaimed(record.name);
  }
  const full: LabRecord = { version: 1, phase: 'coming-up', maker: thisProcess(), ...record };
  await writeRecord(full);
  return full;
}

async function explainClaimed(lab: string): Promise<StaghornError> {
  const record = await readRecord(lab);
  const maker = record === undefined ? undefined : await identify(record.maker.pid);
  const state =
    record?.phase === 'up'
      ? 'is up already'
      : record !== undefined && (await isComingUp(record))
        ? `is being brought up by process ${maker?.pid ?? record.maker.pid}`
        : 'was left half-made by an "up" that did not end well';
  return new StaghornError('conflict', `the lab "${lab}" ${state}; "staghorn lab down ${lab}" removes it`);
}
