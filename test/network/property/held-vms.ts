import { join } from 'node:path';
import { MarkerExchange } from '../../../src/agent/session/marker-exchange.ts';
import { Endpoint } from '../../../src/bench/traffic/index.ts';
import { runCut, runResume } from '../../../src/native/barrier.ts';
import { monotonicNs } from '../../../src/native/clock.ts';
import { closeDescriptor, duplicateDescriptor } from '../../../src/native/descriptors.ts';
import { Gate } from '../../../src/native/gate.ts';
import { readLinks } from '../../../src/native/netlink.ts';
import { readFrameFile, writeFrameFile } from '../../../src/network/frame-file.ts';
import { VmPorts } from '../../../src/network/vm-ports.ts';
import type { VmPort } from '../../../src/network/vm-port.ts';
import type { ReplaySummary } from '../../../src/network/vm-ports.ts';
import type { ArmedPort, MarkerSource, NamesByHost } from '../../../src/protocol/rpc.ts';
import type { ArmParams, Stop, VmToHold } from './protocol.ts';

const ringBytes = 64 * 1024 * 1024;
const spinNs = 150_000;
const ringBoundNs = 20_000_000;
const listenBoundMs = 5_000;
const drainLimits = { boundMs: 20_000, quietMs: 2 };
const frameFile = 'frames.bin';
/** Devices between the switches of the hosts. */
const underlay = ['underlay', 'br-underlay'];

/** The VMs of one host and the gate on their ports, as an agent has them (src/agent/snapshot/stop-session.ts, vm-group.ts). */
export class HeldVms {
  readonly #params: ArmParams;
  readonly #endpoints: readonly Endpoint[];
  readonly #ports: VmPorts;
  readonly #markers: MarkerExchange;
  readonly #signal = new AbortController().signal;
  #stops = new Map<string, bigint>();
  #replay: Promise<ReplaySummary> | undefined;

  private constructor(params: ArmParams, endpoints: readonly Endpoint[], ports: readonly VmPort[]) {
    this.#params = params;
    this.#endpoints = endpoints;
    this.#ports = VmPorts.create({ ports, ringBytes, hold: params.hold });
    const taps = params.vms.map(({ device, mac, switchPort }) => ({ tap: device, mac, switchPort }));
    this.#markers = new MarkerExchange(params.barrier, this.#ports, taps);
  }

  static async arm(params: ArmParams): Promise<HeldVms> {
    const endpoints = await Promise.all(
      params.vms.map(({ name, control }) => Endpoint.connect(name, control)),
    );
    const ports = await Promise.all(endpoints.map((endpoint, place) => portOf(endpoint, params.vms[place]!)));
    const held = new HeldVms(params, endpoints, ports);
    held.#ports.prepareLeftovers(params.ringFile);
    held.#ports.attach();
    return held;
  }

  get armedPorts(): ArmedPort[] {
    return this.#params.vms.map(({ name, device, mac, switchPort: { bridge, tag } }) => {
      return { vm: name, tap: device, mac, bridge, vlan: tag };
    });
  }

  probe(targets: NamesByHost) {
    return this.#markers.probe({ host: this.#params.host, targets }, this.#signal);
  }

  listen(sources: NamesByHost): Promise<MarkerSource[]> {
    return this.#markers.listen({ sources, boundMs: listenBoundMs }, this.#signal);
  }

  async cut(atNs: bigint): Promise<Stop[]> {
    const changes = this.#endpoints.map((endpoint) => ({
      vm: endpoint.name,
      change: endpoint.prepareStop(),
    }));
    const times = await runCut({
      ...{ atNs, spinNs, ringBoundNs, modeWords: [this.#ports.modeWord], ...this.#ports.cutRings() },
      writes: changes.map(({ change: { fd, bytes } }) => ({ fd, bytes })),
    });
    const stops = await Promise.all(
      changes.map(async ({ vm, change }) => ({ vm, atNs: (await change.happened).atNs })),
    );
    this.#ports.takeLeftovers(times);
    this.#stops = new Map(stops.map(({ vm, atNs: stoppedNs }) => [vm, stoppedNs]));
    this.#markers.sendLast();
    return stops;
  }

  async drain(): Promise<void> {
    await this.#ports.drain({ ...drainLimits, watched: watched(), signal: this.#signal }, () =>
      this.#markers.awaited(),
    );
  }

  async save(directory: string): Promise<number> {
    for (const endpoint of this.#endpoints) await endpoint.save(join(directory, endpoint.name));
    const frames = this.#ports.held().map(({ vm, port, atNs, gsoSize, frame }) => {
      return { port, offsetNs: atNs - this.#stops.get(vm)!, gsoSize, frame };
    });
    const ports = this.#ports.ports.map(({ name }) => name);
    await writeFrameFile(join(directory, frameFile), { ports, frames });
    return frames.length;
  }

  async flush(directory: string): Promise<void> {
    this.#markers.stop();
    await this.#ports.flush({ ...drainLimits, watched: watched(), signal: this.#signal });
    this.#ports.preload((await readFrameFile(join(directory, frameFile))).frames);
  }

  async resume(instants: readonly Stop[]): Promise<void> {
    this.#markers.stop();
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

  async settle(): Promise<void> {
    await this.#replay;
    await this.#markers.ebb();
    this.#assertConserved();
    this.close();
  }

  close(): void {
    this.#markers.stop();
    this.#ports.close();
    for (const fd of this.#ports.ports.flatMap(({ tapFds }) => tapFds)) closeDescriptor(fd);
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

async function portOf(endpoint: Endpoint, { name, device }: VmToHold): Promise<VmPort> {
  const { pid, queueFds } = await endpoint.hello();
  const { ifindex } = readLinks().find((link) => link.name === device)!;
  const tapFds = queueFds.map((fd) => duplicateDescriptor({ pid, fd }));
  return { vm: name, name: device, ifindex, tapFds, pid };
}

function watched(): number[] {
  return readLinks()
    .filter(({ name }) => underlay.includes(name))
    .map(({ ifindex }) => ifindex);
}
