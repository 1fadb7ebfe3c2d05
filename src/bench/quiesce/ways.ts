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

/** Which threads of each VM stand still when its command comes. */
export type Held = 'nothing' | 'main thread' | 'main thread and vCPUs';

export interface Treatment {
  readonly stop: Held;
  readonly resume: Held;
  /** What QEMUs say is read once all have stopped, or resumed. */
  readonly quiet: boolean;
  readonly ahead?: boolean;
  readonly hurry?: boolean;
}

/** As Staghorn's agent does (src/agent/session/vm-group.ts). */
export function barrier(name: string, { stop, resume, quiet, hurry = true, ahead = true }: Treatment): Way {
  const answerBoundNs = quiet ? 20_000_000 : 0;
  const undisturbed = async (
    vms: readonly FleetVm[],
    happened: readonly Promise<bigint>[],
    job: () => Promise<unknown>,
  ) => {
    const calm = hurry ? hurryEventLoop() : () => undefined;
    const read = quiet ? vms.map(({ qmp }) => qmp.leaveAlone()) : [];
    try {
      await job();
      for (const again of read) again();
      return await Promise.all(happened);
    } finally {
      calm();
    }
  };
  return {
    name,
    stop: (vms) => {
      const writes = vms.map((vm) => ({
        ...prepared(vm, 'stop', 'STOP', ahead),
        held: heldOf(vm, stop),
      }));
      const rings = { modeWords: [], taps: [], ringBoundNs: 0, journal: null };
      return undisturbed(
        vms,
        writes.map(({ happened }) => happened),
        () => runCut({ atNs: monotonicNs() + leadNs, spinNs, writes, answerBoundNs, ...rings }),
      );
    },
    resume: (vms, stops) => {
      const first = stops.reduce((a, b) => (a < b ? a : b));
      const pauseNs = monotonicNs() + resumeLeadNs - first;
      const writes = vms.map((vm, place) => ({
        ...prepared(vm, 'cont', 'RESUME', ahead),
        held: heldOf(vm, resume),
        atNs: stops[place]! + pauseNs,
      }));
      return undisturbed(
        vms,
        writes.map(({ happened }) => happened),
        () => runResume({ writes, spinNs, answerBoundNs }),
      );
    },
  };
}

function heldOf({ pid, vcpuThreads }: FleetVm, held: Held): HeldVm | null {
  if (held === 'nothing') return null;
  return { mainThread: pid, vcpuThreads: held === 'main thread' ? [] : vcpuThreads };
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
