import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Generator, judge } from '../../../src/bench/traffic/index.ts';
import type { Endpoint, EndpointPlan, FlowVerdict, Verdict } from '../../../src/bench/traffic/index.ts';
import { planTargets, sourcesByHost } from '../../../src/controller/barrier/marker-plan.ts';
import { monotonicNs } from '../../../src/native/clock.ts';
import type { Case } from './case.ts';
import { Host } from './host.ts';
import { bridgeOf } from './network.ts';
import type { CaseNetwork } from './network.ts';
import type { Stop, VmToHold } from './protocol.ts';

/** How far ahead an instant is set, so that every host knows of it in time. */
const aheadNs = 30_000_000n;
const pollMs = 30;
const pathsWorkWithinMs = 20_000;
/** So often must nothing have changed until what is missing is taken for lost. */
const unchangedPolls = { complete: 3, incomplete: 40 };

/** A snapshot of the whole network on disk. */
export interface Snapshot {
  readonly directory: string;
  readonly stops: readonly Stop[];
  /** Frames in flight. */
  readonly frames: number;
}

/** The endpoints of a case and the hosts that hold them; does what the controller does with agents. */
export class Experiment {
  readonly #case: Case;
  readonly #network: CaseNetwork;
  readonly #directory: string;
  readonly #rateShare: number;
  readonly #hosts: readonly Host[];
  #generators: readonly Generator[] = [];
  #snapshots = 0;
  #barriers = 0;
  /** Between the end of one time line and the beginning of the next. */
  #dropsBetween = 0;

  constructor(options: {
    drawn: Case;
    network: CaseNetwork;
    directory: string;
    program: string;
    /** Of the case's rates. */
    rateShare: number;
  }) {
    this.#case = options.drawn;
    this.#network = options.network;
    this.#directory = options.directory;
    this.#rateShare = options.rateShare;
    this.#hosts = options.network.namespaces.map(
      (namespace, host) =>
        new Host({
          ...{ name: `host${host}`, namespace, program: options.program },
          switchDirectory: options.network.switchDirectoryOf(host),
        }),
    );
  }

  /** Plays until every path has been seen to work, and then begins anew. */
  async start(): Promise<void> {
    await this.#startEndpoints(null);
    await this.#pathsWork();
    await this.mute();
    await this.verdict();
    await this.#killEndpoints();
    await this.#startEndpoints(null);
    await this.#network.tapsAreUp();
    await this.#eachEndpoint((endpoint) => endpoint.continue());
  }

  /** Stops time everywhere, and returns when nothing is in flight any more and everything is on disk. */
  async snapshot(): Promise<Snapshot> {
    const directory = join(this.#directory, `snapshot-${this.#snapshots++}`);
    await mkdir(directory);
    await this.#arm(false);
    const atNs = monotonicNs() + aheadNs;
    const cuts = await this.#eachHost((host) => host.call('cut', { atNs }));
    await this.#eachHost((host) => host.call('drain', null));
    const saved = await this.#eachHost(async (host, place) => {
      const own = join(directory, String(place));
      await mkdir(own);
      return host.call('save', { directory: own });
    });
    const frames = saved.reduce((sum, part) => sum + part.frames, 0);
    return { directory, stops: cuts.flatMap(({ stops }) => stops), frames };
  }

  /** Every endpoint stands still for the same time. */
  async goOn({ stops }: Snapshot): Promise<void> {
    const pauseNs = monotonicNs() + aheadNs - firstOf(stops);
    await this.#resume(stops.map(({ vm, atNs }) => ({ vm, atNs: atNs + pauseNs })));
  }

  /** Whatever runs or stands still is killed, and the snapshot is started from disk. */
  async restore({ directory, stops }: Snapshot): Promise<void> {
    await this.#eachHost((host) => host.call('abandon', null));
    const before = await this.#network.drops();
    await this.#killEndpoints();
    await this.#eachHost((host, place) =>
      host.call('plug', { devices: this.#stationsOf(place).map(({ device }) => device) }),
    );
    await this.#startEndpoints(directory);
    await this.#arm(true);
    // Markers follow what is given up and waits where nobody watches.
    await this.#eachHost((host, place) => host.call('flush', { directory: join(directory, String(place)) }));
    this.#dropsBetween += (await this.#network.drops()) - before;
    const shiftNs = monotonicNs() + aheadNs - firstOf(stops);
    await this.#resume(stops.map(({ vm, atNs }) => ({ vm, atNs: atNs + shiftNs })));
  }

  /** What the network has dropped while time ran: a frame that is dropped in a restore should have been kept, or is given up. */
  async drops(): Promise<number> {
    return (await this.#network.drops()) - this.#dropsBetween;
  }

  async mute(): Promise<void> {
    await this.#eachEndpoint((endpoint) => endpoint.mute());
  }

  async unmute(): Promise<void> {
    await this.#eachEndpoint((endpoint) => endpoint.unmute());
  }

  /** When all has come that was sent, or nothing comes any more; nothing may be sent meanwhile. */
  async verdict(): Promise<Verdict> {
    let verdict = await this.#judge();
    for (let unchanged = 0; ; unchanged++) {
      const enough = verdict.lost === 0 ? unchangedPolls.complete : unchangedPolls.incomplete;
      if (unchanged >= enough) return verdict;
      await sleep(pollMs);
      const next = await this.#judge();
      if (JSON.stringify(next) !== JSON.stringify(verdict)) unchanged = 0;
      verdict = next;
    }
  }

  async end(): Promise<void> {
    await Promise.all(this.#hosts.map((host) => host.end()));
    await this.#killEndpoints();
  }

  async #pathsWork(): Promise<void> {
    await this.#eachEndpoint((endpoint) => endpoint.continue());
    const limitMs = performance.now() + pathsWorkWithinMs;
    for (let dead: readonly FlowVerdict[]; ;) {
      dead = (await this.#judge()).flows.filter(({ latencyNs }) => latencyNs === null);
      if (dead.length === 0) return;
      const text = dead.map(({ flow, from, to }) => `flow ${flow} from ${from} to ${to}`).join(', ');
      if (performance.now() > limitMs) throw new Error(`nothing comes of ${text}`);
      await sleep(pollMs);
    }
  }

  async #judge(): Promise<Verdict> {
    const reports = await this.#eachEndpoint((endpoint) => endpoint.report());
    return judge(
      this.#hosts.flatMap((_, place) => this.#plansOf(place, null)),
      reports,
    );
  }

  /** Markers show which paths work, with time running; or nothing is left on them once they have come. */
  async #arm(hold: boolean): Promise<void> {
    const barrier = `property-${this.#barriers++}`;
    const armed = await this.#eachHost((host, place) =>
      host.call('arm', {
        ...{ barrier, host: host.name, vms: this.#vmsOf(place), hold },
        ringFile: join(this.#directory, `${barrier}-${host.name}`),
      }),
    );
    const targets = planTargets(new Map(this.#hosts.map(({ name }, place) => [name, armed[place]!.ports])));
    const sent = await this.#eachHost((host) => host.call('probe', { targets: targets.get(host.name)! }));
    const paths = new Map(this.#hosts.map(({ name }, place) => [name, sent[place]!]));
    const sources = sourcesByHost(paths);
    await this.#eachHost((host) => host.call('listen', { sources: sources.get(host.name) ?? {} }));
  }

  async #resume(instants: readonly Stop[]): Promise<void> {
    await this.#eachHost((host) => host.call('resume', { instants }));
    await this.#eachHost((host) => host.call('settle', null));
  }

  async #startEndpoints(directory: string | null): Promise<void> {
    this.#generators = await Promise.all(
      this.#hosts.map((_, place) => Generator.start(this.#plansOf(place, directory))),
    );
  }

  async #killEndpoints(): Promise<void> {
    await Promise.all(this.#generators.map((generator) => generator.kill()));
    this.#generators = [];
  }

  #stationsOf(place: number) {
    return this.#case.topology.stations.filter(({ host }) => host === place);
  }

  #plansOf(place: number, directory: string | null): EndpointPlan[] {
    return this.#stationsOf(place).map((station) => ({
      name: station.name,
      mac: station.mac,
      port: { kind: 'tap', device: station.device },
      namespace: `/run/netns/${this.#network.namespaceOf(station)}`,
      vnetHeaderBytes: station.vnetHeaderBytes,
      flows: (this.#case.flows.get(station.name) ?? []).map((flow) => ({
        ...flow,
        ratePerSecond: flow.ratePerSecond * this.#rateShare,
      })),
      restoreFrom: directory === null ? undefined : join(directory, String(place), station.name),
    }));
  }

  #vmsOf(place: number): VmToHold[] {
    const generator = this.#generators[place]!;
    return this.#stationsOf(place).map(({ name, device, mac, network, plug }) => {
      const tag = plug === 'trunk' ? null : plug.access;
      const switchPort = { bridge: bridgeOf(network), port: device, vlanMode: null, tag, trunks: [] };
      return { name, device, mac, switchPort, control: generator.controlPath(name) };
    });
  }

  #eachHost<T>(action: (host: Host, place: number) => Promise<T>): Promise<T[]> {
    return Promise.all(this.#hosts.map(action));
  }

  #eachEndpoint<T>(action: (endpoint: Endpoint) => Promise<T>): Promise<T[]> {
    return Promise.all(this.#generators.flatMap(({ endpoints }) => endpoints).map(action));
  }
}

function firstOf(stops: readonly Stop[]): bigint {
  return stops.reduce((first, { atNs }) => (atNs < first ? atNs : first), stops[0]?.atNs ?? 0n);
}
