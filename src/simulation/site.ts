import { Catalog } from '../controller/catalog/catalog.ts';
import { AgentPool } from '../controller/hosts/agent-pool.ts';
import { Controller } from '../controller/controller.ts';
import { markInterrupted } from '../controller/index.ts';
import type { StaghornError } from '../errors/index.ts';
import type { Logger } from '../protocol/logger.ts';
import type { UtcReading } from '../protocol/rpc.ts';
import type { Time } from '../protocol/time.ts';
import { SimulatedAgent } from './agent.ts';
import { SimulatedConnection, type NetworkTemper } from './connection.ts';
import { SimulatedHost } from './host.ts';
import { Invariants } from './invariants.ts';
import type { Random } from './random.ts';
import { bootNs, HostTime, ProcessTime, VirtualTime } from './virtual-time.ts';

export const experimentName = 'simulated';
const silentLog: Logger = { debug() {}, info() {}, warn() {}, error() {} };
/** How long a guardian takes to put a host right whose agent has died. */
const guardianMs = 5;
/** SSH keep-alives: a connection that has been silent for so long is dead. */
const keepAliveMs = 30_000;
/** When one host has given up, how soon time must go on elsewhere: an abort's deadline, a lease, and some more. */
const contagionMs = 40_000;

interface Connected {
  readonly connection: SimulatedConnection;
  readonly agent: SimulatedAgent;
  readonly process: ProcessTime;
}

export interface SiteOptions {
  readonly random: Random;
  readonly hostCount: number;
  readonly vmsPerHost: number;
}

/** Hosts, the network to them, and one controller, all of which can be made to fail. */
export class Site {
  readonly time = new VirtualTime();
  readonly hosts: readonly SimulatedHost[];
  readonly temper: NetworkTemper;
  readonly invariants: Invariants;
  readonly trace: string[] = [];
  /** Messages that have arrived: the clock of the faults. */
  messages = 0;
  onMessage: () => void = () => undefined;
  readonly #random: Random;
  readonly #catalog = Catalog.open(':memory:');
  readonly #connected = new Map<string, Connected>();
  #controllerTime!: ProcessTime;
  #controller!: Controller;

  constructor({ random, hostCount, vmsPerHost }: SiteOptions) {
    this.#random = random;
    this.temper = {
      delayMs: random.between(0.05, 10),
      jitterMs: random.pick([0.01, 0.3, 3, 20]),
      lossRate: 0,
      duplicationRate: 0,
    };
    const errorNs = random.chance(0.5) ? random.between(1e3, 5e6) : null;
    const liar = random.chance(0.25) ? random.count(0, hostCount - 1) : -1;
    this.hosts = Array.from({ length: hostCount }, (_, index) => {
      const offsetNs = BigInt(Math.round(random.between(-Number(bootNs) / 2, 1e15)));
      const time = new HostTime(this.time, offsetNs, random.between(-90, 90));
      const utc = errorNs === null ? undefined : this.#utcOf(time, errorNs, index === liar);
      return new SimulatedHost(index, vmsPerHost, time, utc);
    });
    const trace = (text: string) => this.note(text);
    this.invariants = new Invariants(this.hosts, this.time, trace, (host) => this.#watchOthers(host));
    this.startController();
    const hosts = this.hosts.map(({ name }) => ({ name }));
    this.#controller.addExperiment({ name: experimentName, hosts }).catch(() => undefined);
  }

  /** A host whose CLOCK_REALTIME is kept, as well as it says; or that has missed a leap second. */
  #utcOf(time: Time, errorNs: number, lies: boolean): () => UtcReading {
    return () => {
      const wrongNs = this.#random.between(-errorNs, errorNs) + (lies ? 1e9 : 0);
      return { aheadNs: this.time.nowNs() - time.nowNs() + BigInt(Math.round(wrongNs)), errorNs };
    };
  }

  get controller(): Controller {
    return this.#controller;
  }

  get catalog(): Catalog {
    return this.#catalog;
  }

  get controllerIsDead(): boolean {
    return this.#controllerTime.isKilled;
  }

  note(text: string): void {
    this.trace.push(`${(Number(this.time.nowNs() - bootNs) / 1e6).toFixed(3).padStart(12)} ms  ${text}`);
  }

  startController(): void {
    this.#controllerTime = new ProcessTime(this.time);
    markInterrupted(this.#catalog, silentLog);
    const connect = ({ name }: { readonly name: string }) => this.#connect(name);
    this.#controller = new Controller(
      this.#catalog,
      new AgentPool({ ssh: connect, amqp: connect }, silentLog, this.#controllerTime),
      silentLog,
    );
  }

  /** @param silently as with its whole machine: its agents hear nothing any more, and are not told that they will not */
  crashController(silently: boolean): void {
    this.note(`the controller dies${silently ? ' silently' : ''}`);
    for (const { connection } of this.#connected.values()) {
      if (silently) connection.fallSilent();
      else connection.break('the controller died');
    }
    this.#controllerTime.kill();
    this.invariants.excuse(this.hosts.map(({ name }) => name));
  }

  crashAgent(name: string): void {
    const connected = this.#connected.get(name);
    if (connected === undefined) return;
    this.note(`the agent of ${name} dies`);
    connected.process.kill();
    connected.connection.break('its agent died');
    const host = this.#host(name);
    this.time.after(this.#random.delay(guardianMs), () => host.thaw());
  }

  failVm(name: string): void {
    this.note(`a VM of ${name} dies`);
    this.#connected.get(name)?.agent.failVm();
  }

  cutConnection(name: string): void {
    this.note(`the connection to ${name} breaks`);
    this.#connected.get(name)?.connection.break('the connection broke');
  }

  /** It carries nothing any more; both ends notice by their keep-alives. */
  silenceConnection(name: string): void {
    const connected = this.#connected.get(name);
    if (connected === undefined) return;
    this.note(`the connection to ${name} falls silent`);
    connected.connection.fallSilent();
    this.time.after(keepAliveMs, () => connected.connection.break('no answer to keep-alives'));
  }

  /** Faults stop: the network is good again, and a controller runs. */
  heal(): void {
    this.note('faults stop');
    this.onMessage = () => undefined;
    this.temper.lossRate = 0;
    this.temper.duplicationRate = 0;
    this.temper.jitterMs = Math.min(this.temper.jitterMs, 20);
    for (const host of this.hosts) host.slowness = 1;
    if (this.controllerIsDead) this.startController();
  }

  close(): void {
    this.#catalog.close();
  }

  #host(name: string): SimulatedHost {
    return this.hosts.find((host) => host.name === name)!;
  }

  async #connect(name: string) {
    const host = this.#host(name);
    const controllerTime = this.#controllerTime;
    await new Promise<void>((resolve) => controllerTime.after(this.#random.delay(50), resolve));
    const process = new ProcessTime(host.time);
    // An agent that starts looks for what a dead one has left; one that lives keeps what it has.
    const before = this.#connected.get(name);
    if (before?.process.isKilled === true) host.thaw();
    const agent: SimulatedAgent = new SimulatedAgent({
      ...{ host, time: process, random: this.#random, observer: this.invariants },
      barrierLost: (barrier, { message, code }: StaghornError) =>
        connection.notify('barrierLost', { barrier, reason: message, code, port: null }),
    });
    const connection: SimulatedConnection = new SimulatedConnection({
      ...{
        host: name,
        time: this.time,
        controllerTime,
        agentTime: process,
        random: this.#random,
        temper: this.temper,
      },
      handlers: agent.handlers,
      onAgentInputEnd: () => agent.close('the controller is gone'),
      onMessage: (text) => {
        this.note(text);
        this.messages += 1;
        this.onMessage();
      },
    });
    this.#connected.set(name, { connection, agent, process });
    return { client: connection.client, close: async () => connection.break('closed') };
  }

  #watchOthers(gaveUp: string): void {
    const since = this.hosts
      .filter(({ taken }) => taken !== null)
      .map((host) => ({ host, taken: host.taken }));
    this.time.after(contagionMs, () => {
      for (const { host, taken } of since) {
        const stuck = host.taken === taken && !host.runs && host.name !== gaveUp;
        this.invariants.require('when one host gives up, time goes on on the others', !stuck, host.name);
      }
    });
  }
}
