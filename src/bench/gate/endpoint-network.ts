import { setTimeout as delay } from 'node:timers/promises';

import { monotonicNs } from '../../native/clock.ts';
import { judge, type EndpointPlan, type EndpointReport, type Verdict } from '../traffic/index.ts';
import { EndpointHost } from './endpoint-host.ts';
import type { NetworkHost, NetworkKind } from './emulated-network.ts';
import { planTraffic } from './traffic-plan.ts';

const cutLeadNs = 2_000_000n;
const resumeLeadNs = 2_000_000n;
/** Long enough that each switch has seen a frame of every endpoint. */
const learnMs = 500;
const settleMs = 300;

export interface CutOutcome {
  readonly framesInFlight: number;
  /** Of these, frames that an endpoint had not read from its tap in time. */
  readonly framesFromRings: number;
  readonly pauseMs: number;
  /** For how long in all a switch was ready to run and had no processor: that of the host where it was longest. */
  readonly switchWaitMs: number;
  /** Frames that switches had no room for, between arming and the end. */
  readonly dropped: number;
}

export interface NetworkVerdict extends Verdict {
  readonly packetsPerSecond: number;
  /** Frames that the network's own sockets and queues have dropped: it got too little processor time. */
  readonly dropped: number;
}

/** Endpoints under traffic on all hosts of a network, which stop and go on together. */
export class EndpointNetwork {
  readonly #hosts: readonly EndpointHost[];
  readonly #plans: readonly EndpointPlan[];
  readonly #signal: AbortSignal;
  #begin = { frames: 0, virtualNs: 0, lost: 0, dropped: 0 };

  private constructor(networks: readonly NetworkHost[], packetsPerSecond: number, signal: AbortSignal) {
    const plans = planTraffic(networks, packetsPerSecond);
    this.#hosts = networks.map((network, place) => new EndpointHost(network, plans[place]!));
    this.#plans = plans.flat();
    this.#signal = signal;
  }

  /** Starts the endpoints, and does something while they send. */
  static within<Result>(
    kind: NetworkKind,
    packetsPerSecond: number,
    signal: AbortSignal,
    work: (network: EndpointNetwork) => Promise<Result>,
  ): Promise<Result> {
    return kind.within(signal, async (networks) => {
      const network = new EndpointNetwork(networks, packetsPerSecond, signal);
      try {
        await network.#each((host) => host.start());
        await network.#learn();
        return await work(network);
      } finally {
        await network.#each((host) => host.close());
      }
    });
  }

  async run(ms: number): Promise<void> {
    await delay(ms, undefined, { signal: this.#signal });
  }

  /** Stops time and lets it go on. */
  async cut(): Promise<CutOutcome> {
    return this.#around(async () => undefined);
  }

  /** The same, and everything is written into a directory while time stands still. */
  async snapshot(directory: string): Promise<CutOutcome> {
    return this.#around(() => this.#each((host) => host.save(directory)));
  }

  /** Gives up the present and goes on from what a directory holds. */
  async restore(directory: string): Promise<void> {
    await this.#each((host) => host.restore(directory));
    await this.#each((host) => host.flush(directory, this.#signal));
    const atNs = monotonicNs() + resumeLeadNs;
    await this.#together((host) => host.resumeRestoredAt(atNs));
    await this.#each(async (host) => {
      await host.settle();
    });
  }

  /** Lets everything arrive that was sent, and compares both; since the network has come to know its endpoints. */
  async verdict(): Promise<NetworkVerdict> {
    const sent = sentBy(await this.#reports());
    const seconds = (sent.virtualNs - this.#begin.virtualNs) / 1e9;
    const verdict = await this.#settled();
    const lost = verdict.lost - this.#begin.lost;
    const dropped = (await this.#drops()) - this.#begin.dropped;
    return { ...verdict, lost, dropped, packetsPerSecond: (sent.frames - this.#begin.frames) / seconds };
  }

  /** What is under way when a port of a switch does not forward yet is lost to the network, not to a cut. */
  async #learn(): Promise<void> {
    for (const endpoint of this.#endpoints) await endpoint.continue();
    await this.run(learnMs);
    const { lost } = await this.#settled();
    this.#begin = { ...sentBy(await this.#reports()), lost, dropped: await this.#drops() };
  }

  async #drops(): Promise<number> {
    const counts = await Promise.all(this.#hosts.map((host) => host.drops()));
    return counts.reduce((sum, count) => sum + count, 0);
  }

  async #settled(): Promise<Verdict> {
    for (const endpoint of this.#endpoints) await endpoint.mute();
    let verdict = judge(this.#plans, await this.#reports());
    // Lost only if nothing more comes.
    for (let before = Infinity; verdict.lost > 0 && verdict.lost < before;) {
      before = verdict.lost;
      await this.run(settleMs);
      verdict = judge(this.#plans, await this.#reports());
    }
    for (const endpoint of this.#endpoints) await endpoint.unmute();
    return verdict;
  }

  #reports(): Promise<EndpointReport[]> {
    return Promise.all(this.#endpoints.map((endpoint) => endpoint.report()));
  }

  get #endpoints() {
    return this.#hosts.flatMap(({ endpoints }) => endpoints);
  }

  async #around(work: () => Promise<void>): Promise<CutOutcome> {
    const waitedNs = this.#hosts.map((host) => host.switchWaitNs());
    await this.#each((host) => host.arm({ hold: false }));
    const atNs = monotonicNs() + cutLeadNs;
    let [framesInFlight, framesFromRings] = [0, 0];
    await this.#together(async (host) => {
      framesFromRings += await host.stopAt(atNs, this.#signal);
    });
    await this.#each(async (host) => {
      framesInFlight += await host.drain(this.#signal);
    });
    await work();
    const firstNs = this.#hosts.map(({ firstStopNs }) => firstStopNs).reduce((a, b) => (a < b ? a : b));
    const pauseNs = monotonicNs() + resumeLeadNs - firstNs;
    await this.#together((host) => host.resume(pauseNs));
    let dropped = 0;
    await this.#each(async (host) => {
      dropped += await host.settle();
    });
    const waitsNs = this.#hosts.map((host, place) => host.switchWaitNs() - waitedNs[place]!);
    const switchWaitMs = Math.max(...waitsNs) / 1e6;
    return { framesInFlight, framesFromRings, pauseMs: Number(pauseNs) / 1e6, switchWaitMs, dropped };
  }

  /** One host after the other, each in its own network namespace: a thread is in one at a time. */
  async #each(work: (host: EndpointHost) => Promise<void>): Promise<void> {
    for (const host of this.#hosts) {
      host.enter();
      await work(host);
    }
  }

  /** All hosts at once, for what needs no namespace any more. */
  async #together(work: (host: EndpointHost) => Promise<void>): Promise<void> {
    await Promise.all(this.#hosts.map(work));
  }
}

function sentBy(reports: readonly EndpointReport[]) {
  return {
    frames: reports.flatMap(({ sent }) => sent).reduce((sum, { frames }) => sum + frames, 0),
    virtualNs: Math.max(...reports.map(({ virtualNs }) => virtualNs)),
  };
}
