import { availableParallelism } from 'node:os';

import { treatmentOf, type Demand as Seen } from '../../agent/session/treatment.ts';
import { runCut, runResume } from '../../native/barrier.ts';
import { monotonicNs, realtimeMinusMonotonicNs } from '../../native/clock.ts';
import { hurryEventLoop } from '../../native/scheduling.ts';
import type { QmpEventName } from '../../qmp/index.ts';
import type { FleetVm } from './fleet.ts';

/** What the fleet's vCPUs had asked for, at two instants. */
export interface Demand {
  readonly before: Seen;
  readonly after: Seen;
}

/** How a fleet is stopped and let go on. */
export interface Way {
  readonly name: string;
  /** @returns when each VM's vCPUs had stopped, CLOCK_MONOTONIC */
  stop(vms: readonly FleetVm[], demand: Demand): Promise<bigint[]>;
  /** Each goes on equally long after its own stop, where the way can do that. @returns when each ran again */
  resume(vms: readonly FleetVm[], stops: readonly bigint[], demand: Demand): Promise<bigint[]>;
}

const leadNs = 20_000_000n;
const resumeLeadNs = 3_000_000n;
const spinNs = 150_000;
const timeoutMs = 30_000;

/** `stop` to one VM after the other, as a script does. */
export const serialQmp: Way = {
  name: 'serial QMP',
  stop: (vms) => oneAfterTheOther(vms, 'stop', 'STOP'),
  resume: (vms) => oneAfterTheOther(vms, 'cont', 'RESUME'),
};

/** To all VMs at once, by an event loop. */
export const parallelQmp: Way = {
  name: 'parallel QMP',
  stop: (vms) => Promise.all(vms.map((vm) => command(vm, 'stop', 'STOP'))),
  resume: (vms) => Promise.all(vms.map((vm) => command(vm, 'cont', 'RESUME'))),
};

export interface Treatment {
  /** Which threads of QEMU stand still when its command comes; by load: vCPUs where that helps, as the agent does. */
  readonly held: 'nobody' | 'main threads' | 'main threads and vCPUs' | 'by load';
  /** The command but its last byte is written before the instant. */
  readonly ahead: boolean;
  /** What QEMUs say is read once all of them have said it. */
  readonly quiet: boolean;
}

/** As Staghorn's agent does (src/agent/session/vm-group.ts). */
export function barrier(name: string, { held, ahead, quiet }: Treatment): Way {
  const changes = (
    vms: readonly FleetVm[],
    command: 'stop' | 'cont',
    event: QmpEventName,
    { before, after }: Demand,
  ) => {
    const chosen =
      held === 'by load'
        ? treatmentOf(before, after, availableParallelism())
        : { holdsVcpus: held === 'main threads and vCPUs', holdsForResume: true };
    const isHeld = held !== 'nobody' && (command === 'stop' || chosen.holdsForResume);
    return vms.map((vm) => ({
      ...prepared(vm, command, event, ahead),
      held: isHeld ? { mainThread: vm.pid, vcpuThreads: chosen.holdsVcpus ? vm.vcpuThreads : [] } : null,
    }));
  };
  const answerBoundNs = quiet ? 20_000_000 : 0;
  return {
    name,
    stop: (vms, demand) => {
      const writes = changes(vms, 'stop', 'STOP', demand);
      const rings = { modeWords: [], taps: [], ringBoundNs: 0, journal: null };
      const atNs = monotonicNs() + leadNs;
      return told(vms, writes, quiet, () => runCut({ atNs, spinNs, writes, answerBoundNs, ...rings }));
    },
    resume: (vms, stops, demand) => {
      const pauseNs = monotonicNs() + resumeLeadNs - stops.reduce((a, b) => (a < b ? a : b));
      const writes = changes(vms, 'cont', 'RESUME', demand).map((change, place) => ({
        ...change,
        atNs: stops[place]! + pauseNs,
      }));
      return told(vms, writes, quiet, () => runResume({ writes, spinNs, answerBoundNs }));
    },
  };
}

/** Does the job, and gives the instants at which the changes happened. */
async function told(
  vms: readonly FleetVm[],
  changes: readonly { happened: Promise<bigint> }[],
  quiet: boolean,
  job: () => Promise<unknown>,
): Promise<bigint[]> {
  const calm = hurryEventLoop();
  const readers = quiet ? vms.map(({ qmp }) => qmp.leaveAlone()) : [];
  try {
    await job();
    for (const readAgain of readers) readAgain();
    return await Promise.all(changes.map(({ happened }) => happened));
  } finally {
    calm();
  }
}

async function oneAfterTheOther(
  vms: readonly FleetVm[],
  name: 'stop' | 'cont',
  event: QmpEventName,
): Promise<bigint[]> {
  const times: bigint[] = [];
  for (const vm of vms) times.push(await command(vm, name, event));
  return times;
}

/** The event's own time stamp, made by QEMU when it had happened. */
async function command({ qmp }: FleetVm, name: 'stop' | 'cont', event: QmpEventName): Promise<bigint> {
  const happened = qmp.waitEvent(event, { timeoutMs });
  await qmp.execute(name);
  return (await happened).timestampNs - realtimeMinusMonotonicNs();
}

function prepared({ qmp }: FleetVm, name: 'stop' | 'cont', event: QmpEventName, ahead: boolean) {
  const { bytes } = qmp.prepare(name);
  const happened = qmp
    .waitEvent(event, { timeoutMs })
    .then(({ timestampNs }) => timestampNs - realtimeMinusMonotonicNs());
  return { fd: qmp.fd, bytes, headBytes: ahead ? bytes.length - 1 : 0, happened };
}
