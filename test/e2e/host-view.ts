import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

import type { Lab } from '../../src/lab/index.ts';
import { readSwitchSockets } from '../../src/lab/network-drops.ts';
import { processesIn, until } from '../../src/lab/processes.ts';
import type { BundleFile } from '../../src/transport/index.ts';
import { hostPath } from './harness.ts';

export const storePath = '/var/lib/staghorn/snapshots';
const intentPath = '/run/staghorn/barriers';

/** The agent as it was built. */
export const agentBundle: readonly BundleFile[] = ['agent.cjs', 'staghorn.node', 'ioctl-native.node'].map(
  (name) => ({
    name,
    path: fileURLToPath(new URL(`../../dist/agent-bundle/${name}`, import.meta.url)),
  }),
);

export interface HostProcess {
  readonly pid: number;
  readonly role: 'agent' | 'guardian' | 'qemu';
}

/** Everything of Staghorn and QEMU that runs in a host, forks and tracers included. */
export async function processesOf(lab: Lab, host: string): Promise<HostProcess[]> {
  const { namespace } = lab.hosts.find(({ name }) => name === host)!;
  const pids = await processesIn(`/run/netns/${namespace}`);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
      const role = roleOf(argv);
      return role === null ? [] : [{ pid, role }];
    }),
  );
  return found.flat();
}

function roleOf(argv: readonly string[]): HostProcess['role'] | null {
  if (argv[0]?.includes('qemu-system') === true) return 'qemu';
  if (argv[1]?.endsWith('/agent.cjs') !== true) return null;
  return argv[2] === 'guard' ? 'guardian' : 'agent';
}

export async function pidsOf(lab: Lab, host: string, role: HostProcess['role']): Promise<number[]> {
  return (await processesOf(lab, host)).flatMap((process) => (process.role === role ? [process.pid] : []));
}

const entriesOf = (lab: Lab, host: string, path: string) =>
  readdir(hostPath(lab, host, path)).catch(() => []);

/** What barriers under way have written down in any host. */
export async function intents(lab: Lab): Promise<string[]> {
  return (await Promise.all(lab.hosts.map(({ name }) => entriesOf(lab, name, intentPath)))).flat();
}

export async function partialSnapshots(lab: Lab): Promise<string[]> {
  const all = (await Promise.all(lab.hosts.map(({ name }) => entriesOf(lab, name, storePath)))).flat();
  return all.filter((name) => name.endsWith('.partial'));
}

/** As the controller keeps it. */
export async function manifestSha256(lab: Lab, host: string, snapshot: string): Promise<string> {
  const path = join(hostPath(lab, host, storePath), snapshot, 'manifest.json');
  return createHash('sha256')
    .update(await readFile(path))
    .digest('hex');
}

export function isSealed(lab: Lab, host: string, snapshot: string): boolean {
  return existsSync(join(hostPath(lab, host, storePath), snapshot, 'manifest.json'));
}

/** How much the sockets of the hosts' switches may hold for each device, in bytes. */
export async function switchBuffers(lab: Lab): Promise<Map<string, number>> {
  const sizes = lab.hosts.map(async ({ name, namespace }) => {
    const sockets = await readSwitchSockets(namespace);
    return sockets.flatMap(({ device, bufferBytes }): [string, number][] =>
      device === '*' ? [] : [[`${name} ${device}`, bufferBytes]],
    );
  });
  return new Map((await Promise.all(sizes)).flat());
}

/** Waits until no barrier is under way in any host. @returns how long that took; throws if it takes longer than that */
export async function untilSettled(lab: Lab, timeoutMs: number): Promise<number> {
  const startedAtMs = performance.now();
  const settled = await until(async () => (await intents(lab)).length === 0, { timeoutMs });
  if (!settled) throw new Error(`after ${timeoutMs} ms there is still ${(await intents(lab)).join(', ')}`);
  return performance.now() - startedAtMs;
}

/** Waits until a host has as many processes of a kind as it should, and no fork or tracer beside them. */
export async function untilCount(
  lab: Lab,
  host: string,
  role: HostProcess['role'],
  count: number,
): Promise<void> {
  const settled = await until(async () => (await pidsOf(lab, host, role)).length === count, {
    timeoutMs: 10_000,
  });
  if (!settled)
    throw new Error(`host ${host} has ${role} processes ${(await pidsOf(lab, host, role)).join(', ')}`);
}
