import { readFile } from 'node:fs/promises';

import type { Lab } from '../../lab/index.ts';
import { processesIn } from '../../lab/processes.ts';

/** What the QEMUs of a lab take, each by its VM's name. */
export async function qemuMemory(lab: Lab): Promise<Map<string, number>> {
  const perHost = await Promise.all(
    lab.hosts.map(async ({ namespace }) => {
      const pids = await processesIn(`/run/netns/${namespace}`);
      return Promise.all(pids.map(async (pid) => [await vmOf(pid), await proportionalBytes(pid)] as const));
    }),
  );
  return new Map(perHost.flat().flatMap(([name, bytes]) => (name === null ? [] : [[name, bytes] as const])));
}

async function vmOf(pid: number): Promise<string | null> {
  const argv = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  if (argv[0]?.includes('qemu-system') !== true) return null;
  return argv[argv.indexOf('-name') + 1] ?? null;
}

/** Memory of a process, what it shares counted by its share (proc(5), smaps_rollup). */
async function proportionalBytes(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  return Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0) * 1024;
}
