import type { Lab } from '../../lab/index.ts';
import { processesIn } from '../../lab/processes.ts';
import { readProcessStat } from '../../vmm/process-identity.ts';

/** What a process has taken of the processors, with children that it has waited for. */
interface ProcessorTime {
  readonly command: string;
  readonly ms: number;
}
export type ProcessorTimes = ReadonlyMap<number, ProcessorTime>;

/** USER_HZ is 100 on every Linux that matters (proc(5)). */
const tickMs = 10;
const commandOfQemu = 'qemu-system-x86';

/** Of everything on a lab's hosts, and of a server. */
export async function processorTimes(lab: Lab, server: number): Promise<ProcessorTimes> {
  const onHosts = await Promise.all(lab.hosts.map(({ namespace }) => processesIn(`/run/netns/${namespace}`)));
  const pids = [...onHosts.flat(), server];
  const times = await Promise.all(pids.map(async (pid) => [pid, await timeOf(pid)] as const));
  return new Map(
    times.flatMap(([pid, time]) => {
      if (time === null) return [];
      return [[pid, pid === server ? { ...time, command: 'controller' } : time] as const];
    }),
  );
}

async function timeOf(pid: number): Promise<ProcessorTime | null> {
  const stat = await readProcessStat(pid);
  return stat === null ? null : { command: stat.command, ms: stat.takenTicks * tickMs };
}

/** What was taken in between: by the QEMUs that were started, and by the others, by their command. */
export function takenBetween(
  before: ProcessorTimes,
  after: ProcessorTimes,
): { newQemusMs: number; others: ReadonlyMap<string, number> } {
  let newQemusMs = 0;
  const others = new Map<string, number>();
  for (const [pid, { command, ms }] of after) {
    const known = before.get(pid);
    if (known === undefined && command === commandOfQemu) newQemusMs += ms;
    else others.set(command, (others.get(command) ?? 0) + ms - (known?.ms ?? 0));
  }
  return { newQemusMs, others };
}
