import { join } from 'node:path';
import { Endpoint } from '../../../src/bench/traffic/index.ts';
import { runCut, runResume } from '../../../src/native/barrier.ts';
import { monotonicNs } from '../../../src/native/clock.ts';
import { closeDescriptor, duplicateDescriptor } from '../../../src/native/descriptors.ts';
import { Gate } from '../../../src/native/gate.ts';
import { readLinks } from '../../../src/native/netlink.ts';
import { readFrameFile, writeFrameFile } from '../../../src/network/frame-file.ts';
import { VmPorts } from '../../../src/network/vm-ports.ts';
import type { ReplaySummary, VmPort } from '../../../src/network/vm-ports.ts';
import type { Stop, VmToHold } from './protocol.ts';

const ringBytes = 64 * 1024 * 1024;
const spinNs = 150_000;
const ringBoundNs = 2_000_000;
const leftoverBytesMax = 4 * 1024 * 1024;
const frameFile = 'frames.bin';
/** Long enough that no frame is still in a switch that waits for a processor: nothing tells for certain yet. */
const drainWish = { boundMs: 10_000, quietMs: 40 };
/** Devices between the switches of the hosts. */
const underlay = ['underlay', 'br-underlay'];

/** The VMs of one host and the gate on their ports, as the agent has them (src/agent/vm-group.ts). */
export class HeldVms {
  readonly #endpoints: readonly Endpoint[];
  readonly #ports: VmPorts;
  #stops = new Map<string, bigint>();
  #replay: Promise<ReplaySummary> | undefined;

  private constructor(endpoints: readonly Endpoint[], ports: VmPorts) {
    this.#endpoints = endpoints;
    this.#ports = ports;
  }

  static async arm(vms: readonly VmToHold[], directory: string | null): Promise<HeldVms> {
    const endpoints: Endpoint[] = [];
    const ports: VmPort[] = [];
    for (const vm of vms) {
      const endpoint = await Endpoint.connect(vm.name, vm.control);
      endpoints.push(endpoint);
      const { pid, queueFds } = await endpoint.hello();
      const ifindex = readLinks().find(({ name }) => name === vm.device)!.ifindex;
      const tapFd = duplicateDescriptor({ pid, fd: queueFds[0]! });
      ports.push({ vm: vm.name, name: vm.device, ifindex, tapFd });
    }
    const held = new HeldVms(endpoints, VmPorts.create({ ports, ringBytes, hold: directory !== null }));
    held.#ports.attach();
    if (directory !== null) held.#ports.preload((await readFrameFile(join(directory, frameFile))).frames);
    return held;
  }

  async cut(atNs: bigint): Promise<{ stops: Stop[]; framesFromRings: number }> {
    const changes = this.#endpoints.map((endpoint) => ({
      vm: endpoint.name,
      change: endpoint.prepareStop(),
    }));
    const { leftovers, leftoversFull } = await runCut({
      ...{ atNs, spinNs, ringBoundNs, leftoverBytesMax },
      modeWord: this.#ports.modeWord,
      taps: this.#ports.cutTaps(),
      writes: changes.map(({ change: { fd, bytes } }) => ({ fd, bytes })),
    });
    this.#ports.takeLeftovers(leftovers);
    if (leftoversFull) throw new Error('endpoints left more frames in their rings than there is room for');
    const stops = await Promise.all(
      changes.map(async ({ vm, change }) => ({ vm, atNs: (await change.happened).atNs })),
    );
    this.#stops = new Map(stops.map(({ vm, atNs: stoppedNs }) => [vm, stoppedNs]));
    return { stops, framesFromRings: leftovers.length };
  }

  async drain(): Promise<{ heldFrames: number }> {
    const watched = readLinks()
      .filter(({ name }) => underlay.includes(name))
      .map(({ ifindex }) => ifindex);
    await this.#ports.drain({ ...drainWish, watched, signal: new AbortController().signal });
    return { heldFrames: this.#ports.held().length };
  }

  async save(directory: string): Promise<{ frames: number }> {
    for (const endpoint of this.#endpoints) await endpoint.save(join(directory, endpoint.name));
    const frames = this.#ports.held().map(({ vm, port, atNs, gsoSize, frame }) => {
      return { port, offsetNs: atNs - this.#stops.get(vm)!, gsoSize, frame };
    });
    const ports = this.#ports.ports.map(({ name }) => name);
    await writeFrameFile(join(directory, frameFile), { ports, frames });
    return { frames: frames.length };
  }

  async resume(instants: readonly Stop[]): Promise<void> {
    const changes = this.#endpoints.map((endpoint) => ({
      atNs: instants.find(({ vm }) => vm === endpoint.name)?.atNs ?? monotonicNs(),
      vm: endpoint.name,
      change: endpoint.prepareContinue(),
    }));
    const firstNs = changes.reduce(
      (first, { atNs }) => (atNs < first ? atNs : first),
      changes[0]?.atNs ?? 0n,
    );
    const resumptions = changes.map(({ vm, atNs }) => {
      const stoppedNs = this.#stops.get(vm);
      return [vm, { atNs, shiftNs: stoppedNs === undefined ? 0n : atNs - stoppedNs }] as const;
    });
    this.#replay = this.#ports.replay(firstNs, new Map(resumptions));
    this.#replay.catch(() => undefined);
    const writes = changes.map(({ atNs, change: { fd, bytes } }) => ({ atNs, fd, bytes }));
    await runResume({ spinNs, writes });
    await Promise.all(changes.map(({ change }) => change.happened));
  }

  async settle(): Promise<{ delivered: number }> {
    const summary = await this.#replay;
    this.#assertConserved();
    this.close();
    return { delivered: summary?.delivered ?? 0 };
  }

  close(): void {
    this.#ports.close();
    for (const { tapFd } of this.#ports.ports) closeDescriptor(tapFd);
    for (const endpoint of this.#endpoints) endpoint.close();
  }

  /** Every frame that the gate ever took is back, and none found no room. */
  #assertConserved(): void {
    const gate = Gate.open(this.#ports.identity);
    try {
      for (const port of this.#ports.ports) {
        const { diverted, returned, failed } = gate.counters(this.#ports.slotOf(port));
        if (diverted === returned && failed === 0) continue;
        const text = `${diverted} frames were diverted, ${returned} returned, ${failed} found no room`;
        throw new Error(`gate of ${port.name}: ${text}`);
      }
    } finally {
      gate.close();
    }
  }
}
