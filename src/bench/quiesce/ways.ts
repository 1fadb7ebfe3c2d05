import { runCut, runResume, type HeldVm } from '../../native/barrier.ts';
import { monotonicNs, realtimeMinusMonotonicNs } from '../../native/clock.ts';
import { hurryEventLoop } from '../../native/scheduling.ts';
import type { QmpEventName } from '../../qmp/index.ts';
import type { FleetVm } from './fleet.ts';

/** How a fleet is stopped and let go on. */
export interface Way {
  readonly name: string;
  /** @returns when each VM's vCPUs had stopped, CLOCK_MONOTONIC */
  stop(vms: readonly FleetVm[]): Promise<bigint[]>;
  /** Each goes on equally long after its own stop, where the way can do that. @returns when each ran again */
  resume(vms: readonly FleetVm[], stops: readonly bigint[]): Promise<bigint[]>;
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

/** When vCPUs are held while main threads work. */
export type HeldAt = readonly ('stop' | 'resume')[];

/** As Staghorn's agent does (src/agent/session/vm-group.ts). */
export function barrier(name: string, heldAt: HeldAt): Way {
  const heldOf = (vms: readonly FleetVm[], at: HeldAt[number]) =>
    heldAt.includes(at) ? vms.map(heldVm) : [];
  return {
    name,
    stop: async (vms) => {
      const calm = hurryEventLoop();
      try {
        const writes = vms.map((vm) => prepared(vm, 'stop', 'STOP'));
        await runCut({
          ...{ atNs: monotonicNs() + leadNs, spinNs, modeWords: [], taps: [], ringBoundNs: 0, journal: null },
          ...{ writes, held: heldOf(vms, 'stop') },
        });
        return await Promise.all(writes.map(({ happened }) => happened));
      } finally {
        calm();
      }
    },
    resume: async (vms, stops) => {
      const calm = hurryEventLoop();
      try {
        const first = stops.reduce((a, b) => (a < b ? a : b));
        const pauseNs = monotonicNs() + resumeLeadNs - first;
        const writes = vms.map((vm, place) => ({
          ...prepared(vm, 'cont', 'RESUME'),
          atNs: stops[place]! + pauseNs,
        }));
        await runResume({ writes, spinNs, held: heldOf(vms, 'resume') });
        return await Promise.all(writes.map(({ happened }) => happened));
      } finally {
        calm();
      }
    },
  };
}

const heldVm = ({ pid, vcpuThreads }: FleetVm): HeldVm => ({ mainThread: pid, vcpuThreads });

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

function prepared({ qmp }: FleetVm, name: 'stop' | 'cont', event: QmpEventName) {
  const { bytes } = qmp.prepare(name);
  const happened = qmp
    .waitEvent(event, { timeoutMs })
    .then(({ timestampNs }) => timestampNs - realtimeMinusMonotonicNs());
  return { fd: qmp.fd, bytes, happened };
}
