import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { VmGroup } from '../../agent/session/vm-group.ts';
import { closeDescriptor, duplicateDescriptor } from '../../native/descriptors.ts';
import { plugTap } from '../../native/plug.ts';
import { isErrno } from '../../native/rtnetlink.ts';
import { openTap } from '../../native/tap.ts';
import { readFrameFile, writeFrameFile } from '../../network/frame-file.ts';
import { ReceiveBuffers } from '../../network/switches/receive-buffers.ts';
import { VmPorts, type DrainWish, type HeldFrame } from '../../network/vm-ports.ts';
import type { ControlledVm } from '../../vmm/controlled-vm.ts';
import { threadTimesOf } from '../../vmm/thread-times.ts';
import { Generator, type Endpoint, type EndpointPlan, type PreparedChange } from '../traffic/index.ts';
import type { NetworkHost } from './emulated-network.ts';

const ringBytes = 16 * 2 ** 20;
const quietMs = 5;
const boundMs = 5000;
const busyBoundMs = 5000;

/** What a VmGroup uses of a VM. */
type GroupedVm = Pick<
  ControlledVm,
  'name' | 'resumes' | 'wantedNs' | 'prepareStop' | 'prepareResume' | 'close'
> & {
  readonly qmp: Pick<ControlledVm['qmp'], 'fd' | 'isClosed'>;
};

/**
 * A host whose VMs are the traffic generator's endpoints: they are stopped, drained, let go on and restored by what
 * does so with VMs. Whoever calls anything here has entered the host's network namespace.
 */
export class EndpointHost {
  readonly #network: NetworkHost;
  readonly #plans: readonly EndpointPlan[];
  #generator: Generator | undefined;
  #group: VmGroup | undefined;
  #stops = new Map<string, bigint>();

  constructor(network: NetworkHost, plans: readonly EndpointPlan[]) {
    this.#network = network;
    this.#plans = plans;
  }

  get endpoints(): readonly Endpoint[] {
    return this.#generator?.endpoints ?? [];
  }

  enter(): void {
    this.#network.namespace.enter();
  }

  /** Frames that its network has dropped by itself. */
  drops(): Promise<number> {
    return this.#network.drops();
  }

  /** For how long in all its switch's main thread, which moves frames between devices, has waited for a processor. */
  switchWaitNs(): number {
    const { openVSwitch } = this.#network;
    if (openVSwitch === null) return 0;
    return Number(threadTimesOf(openVSwitch.pid, [openVSwitch.pid]).waitedNs);
  }

  async start(): Promise<void> {
    this.#generator = await Generator.start(this.#plans);
  }

  /** Puts the gate on all taps; `hold`: closed, before endpoints that do not run. */
  async arm({ hold }: { hold: boolean }): Promise<void> {
    const buffers = await this.#switchBuffers();
    buffers?.enlarge();
    const { vms, ports } = await this.#takeControl();
    const made = VmPorts.create({ ports, ringBytes, hold });
    this.#group = new VmGroup(vms, made, null, buffers);
    this.#stops = new Map();
    if (!hold) made.prepareLeftovers(this.#leftoverFile);
    this.#group.attach();
  }

  /** @returns how many frames endpoints had not read from their taps */
  async stopAt(atNs: bigint, signal: AbortSignal): Promise<number> {
    const noted = (name: string, stoppedAtNs: bigint) => this.#stops.set(name, stoppedAtNs);
    return (await this.#armed.stopAt(atNs, signal, noted)).framesFromRings;
  }

  /** @returns how many frames were in flight */
  async drain(signal: AbortSignal): Promise<number> {
    await this.#armed.ports.drain(this.#wish(signal));
    return this.#held().length;
  }

  /** Endpoints and frames in flight into files of a directory, as they stand still. */
  async save(directory: string): Promise<void> {
    for (const endpoint of this.endpoints) await endpoint.save(join(directory, endpoint.name));
    const frames = this.#held().map(({ vm, atNs, ...frame }) => ({
      ...frame,
      offsetNs: atNs - this.#stops.get(vm)!,
    }));
    const ports = this.#network.taps.map(({ name }) => name);
    await writeFrameFile(this.#frameFile(directory), { ports, frames });
  }

  /** Each endpoint goes on the same time after it had stopped. @returns when everything held was given back */
  async resume(pauseNs: bigint): Promise<void> {
    const instants = new Map([...this.#stops].map(([name, stoppedAtNs]) => [name, stoppedAtNs + pauseNs]));
    await this.#armed.resumeAt(instants, this.#stops);
  }

  /** When the first endpoint stopped. */
  get firstStopNs(): bigint {
    return [...this.#stops.values()].reduce((first, atNs) => (atNs < first ? atNs : first));
  }

  /** Kills the endpoints while they run, and starts them anew from their files, standing still behind a closed gate. */
  async restore(directory: string): Promise<void> {
    await this.#generator?.kill();
    for (const { name } of this.#network.taps) await plugWhenFree(name);
    this.#generator = await Generator.start(
      this.#plans.map((plan) => ({ ...plan, restoreFrom: join(directory, plan.name) })),
    );
    await this.arm({ hold: true });
  }

  /** Drops what was on the wire when the endpoints were killed, and lines up the frames of the files. */
  async flush(directory: string, signal: AbortSignal): Promise<void> {
    const { ports } = this.#armed;
    await ports.flush(this.#wish(signal));
    ports.preload((await readFrameFile(this.#frameFile(directory))).frames);
  }

  async resumeRestoredAt(atNs: bigint): Promise<void> {
    await this.#armed.resumeAt(new Map(this.#armed.vms.map(({ name }) => [name, atNs])), new Map());
  }

  /** Once everything that was held is back: takes the gate off. @returns frames that the switch dropped meanwhile */
  async settle(): Promise<number> {
    const buffers = this.#group?.buffers;
    await this.#group?.replayed();
    await this.#group?.close();
    this.#group = undefined;
    rmSync(this.#leftoverFile, { force: true });
    return buffers?.dropped ?? 0;
  }

  async close(): Promise<void> {
    await this.#group?.close();
    await this.#generator?.kill();
    rmSync(this.#leftoverFile, { force: true });
  }

  async #switchBuffers(): Promise<ReceiveBuffers | null> {
    const { taps, switchedDevices, openVSwitch } = this.#network;
    if (openVSwitch === null) return null;
    const devices = [...taps.map(({ ifindex }) => ifindex), ...switchedDevices];
    return ReceiveBuffers.find(devices, openVSwitch.directory);
  }

  get #armed(): VmGroup {
    if (this.#group === undefined) throw new Error('the host is not armed');
    return this.#group;
  }

  #held(): HeldFrame[] {
    return this.#armed.ports.held();
  }

  #wish(signal: AbortSignal): DrainWish {
    return { quietMs, boundMs, watched: this.#network.switchedDevices, signal };
  }

  /** In memory, as an agent's. */
  get #leftoverFile(): string {
    return `/run/${this.#network.namespace.name}.leftovers`;
  }

  #frameFile(directory: string): string {
    return join(directory, `${this.#network.namespace.name}.frames`);
  }

  async #takeControl() {
    const { taps } = this.#network;
    const twins = await Promise.all(
      this.endpoints.map(async (endpoint) => {
        const { pid, queueFds } = await endpoint.hello();
        return { pid, tapFds: queueFds.map((fd) => duplicateDescriptor({ pid, fd })) };
      }),
    );
    const vms = this.endpoints.map((endpoint, place) => asVm(endpoint, twins[place]!.tapFds));
    const ports = this.endpoints.map(({ name: vm }, place) => {
      const { name, ifindex } = taps[place]!;
      return { vm, name, ifindex, ...twins[place]! };
    });
    return { vms, ports };
  }
}

/** An endpoint obeys `stop` and `cont` written to its socket as QEMU does, and says when it did. */
function asVm(endpoint: Endpoint, tapFds: readonly number[]): ControlledVm {
  const socket = { fd: -1, isClosed: false };
  const prepared = ({ fd, bytes, happened }: PreparedChange) => {
    socket.fd = fd;
    return {
      ...{ bytes: Buffer.from(bytes), headBytes: 0, letsGo: null, held: null, leaveAlone: null },
      happened: happened.then(({ atNs }) => atNs),
    };
  };
  const vm: GroupedVm = {
    name: endpoint.name,
    resumes: true,
    qmp: socket,
    wantedNs: () => 0n,
    prepareStop: () => prepared(endpoint.prepareStop()),
    prepareResume: () => prepared(endpoint.prepareContinue()),
    close: async () => {
      for (const fd of tapFds) closeDescriptor(fd);
    },
  };
  return vm as ControlledVm;
}

/** As a restore does: until the gate is there, what comes for the tap is dropped. */
async function plugWhenFree(name: string): Promise<void> {
  for (const limit = performance.now() + busyBoundMs; ;) {
    try {
      const fd = openTap({ name });
      plugTap(fd);
      closeDescriptor(fd);
      return;
    } catch (error) {
      if (!isErrno(error, 'EBUSY') || performance.now() > limit) throw error;
      await delay(1);
    }
  }
}
