import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { QmpClient } from '../../qmp/index.ts';
import { monotonicNs } from '../../native/clock.ts';
import { threadTimesOf } from '../../vmm/thread-times.ts';
import { readVcpuThreads } from '../../vmm/vcpu-threads.ts';
import { guestFloppy, type GuestLoad } from './guests.ts';

const memoryMiB = 32;
const connectPollMs = 10;
const connectBoundMs = 30_000;
/** From the boot sector on; the firmware before it is busy in any guest. */
const bootMs = 3_000;

export interface FleetVm {
  readonly pid: number;
  readonly qmp: QmpClient;
  readonly vcpuThreads: readonly number[];
}

/** VMs of one kind on this machine. */
export class Fleet {
  readonly vms: readonly FleetVm[];
  readonly #children: readonly ChildProcess[];
  readonly #directory: string;

  private constructor(vms: readonly FleetVm[], children: readonly ChildProcess[], directory: string) {
    this.vms = vms;
    this.#children = children;
    this.#directory = directory;
  }

  static async start(count: number, load: GuestLoad, signal: AbortSignal): Promise<Fleet> {
    const directory = mkdtempSync(join(tmpdir(), 'staghorn-quiesce-'));
    const floppy = join(directory, 'floppy');
    writeFileSync(floppy, guestFloppy(load));
    const children = Array.from({ length: count }, (_, place) => launch(directory, floppy, place));
    try {
      const vms = await Promise.all(
        children.map(async (child, place) => {
          const qmp = await connect(socketOf(directory, place), child, signal);
          return { pid: child.pid!, qmp, vcpuThreads: await readVcpuThreads(qmp) };
        }),
      );
      await delay(bootMs, undefined, { signal });
      return new Fleet(vms, children, directory);
    } catch (error) {
      await new Fleet([], children, directory).close();
      throw error;
    }
  }

  /** What its vCPUs have asked for until now, and what its other threads have used, nanoseconds. */
  look(): { atNs: bigint; wantedNs: bigint; workNs: bigint } {
    const atNs = monotonicNs();
    let [wantedNs, workNs] = [0n, 0n];
    for (const { pid, vcpuThreads } of this.vms) {
      const vcpus = threadTimesOf(pid, vcpuThreads);
      wantedNs += vcpus.ranNs + vcpus.waitedNs;
      const threads = readdirSync(`/proc/${pid}/task`).map(Number);
      workNs += threadTimesOf(
        pid,
        threads.filter((thread) => !vcpuThreads.includes(thread)),
      ).ranNs;
    }
    return { atNs, wantedNs, workNs };
  }

  async close(): Promise<void> {
    await Promise.all(this.vms.map(({ qmp }) => qmp.close()));
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

const socketOf = (directory: string, place: number) => join(directory, `qmp${place}`);

function launch(directory: string, floppy: string, place: number): ChildProcess {
  const machine = ['-M', 'pc', '-accel', 'tcg', '-m', `${memoryMiB}`, '-nodefaults', '-display', 'none'];
  const disk = ['-drive', `if=floppy,format=raw,readonly=on,file=${floppy}`, '-boot', 'a'];
  const monitor = ['-qmp', `unix:${socketOf(directory, place)},server=on,wait=off`];
  const name = ['-name', `quiesce${place},debug-threads=on`];
  return spawn('qemu-system-x86_64', [...machine, ...disk, ...monitor, ...name], {
    stdio: 'ignore',
    // A session of its own, as any daemon's: with autogroups (sched(7)) each is a group of its own.
    detached: true,
  });
}

async function connect(path: string, child: ChildProcess, signal: AbortSignal): Promise<QmpClient> {
  const limitMs = performance.now() + connectBoundMs;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`QEMU ended with exit code ${child.exitCode}`);
    try {
      return await QmpClient.connect({ path, signal });
    } catch (error) {
      if (performance.now() > limitMs) throw error;
    }
    await delay(connectPollMs, undefined, { signal });
  }
}
