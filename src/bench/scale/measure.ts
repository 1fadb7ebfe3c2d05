import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { AgentPool } from '../../controller/hosts/agent-pool.ts';
import { Catalog } from '../../controller/catalog/catalog.ts';
import { Controller } from '../../controller/controller.ts';
import { StaghornError } from '../../errors/index.ts';
import type { Logger } from '../../protocol/logger.ts';
import { AgentProcess } from './agent-process.ts';

/** What one snapshot of so many hosts costs the controller. */
export interface ScaleMeasurement {
  /** Until the last VM stood still, and until the controller had every host's report of that. */
  readonly toCutMs: number;
  readonly toReportsMs: number;
  readonly toSealedMs: number;
  readonly cpuMs: number;
  /** The controller's and the agents' until all had reported the cut: in this bench they share the machine. */
  readonly cpuToReportsMs: number;
  readonly agentsCpuToReportsMs: number;
  readonly peakRssMiB: number;
  /** Until all connections were up, which are kept then. */
  readonly connectMs: number;
}

export interface ScaleOptions {
  readonly hosts: number;
  readonly vmsPerHost: number;
  readonly rounds: number;
  readonly signal: AbortSignal;
}

const silentLog: Logger = { debug() {}, info() {}, warn() {}, error() {} };
const experiment = 'scale';
const snapshotInput = { method: 'auto', labels: {}, incremental: true, compression: 'none' } as const;

/** Takes snapshots of simulated hosts with a controller in this process, and a catalog on disk. */
export async function measureScale(options: ScaleOptions): Promise<ScaleMeasurement[]> {
  const { hosts, vmsPerHost, rounds } = options;
  const directory = await mkdtemp(join(tmpdir(), 'staghorn-bench-scale-'));
  const agents = await AgentProcess.start(join(directory, 'agents'), hosts, vmsPerHost);
  const catalog = Catalog.open(join(directory, 'catalog.sqlite'));
  const connect = ({ name }: { readonly name: string }) => agents.connect(name);
  const pool = new AgentPool({ ssh: connect, amqp: connect }, silentLog);
  const controller = new Controller(catalog, pool, silentLog);
  const rss = new PeakRss();
  try {
    const names = Array.from({ length: hosts }, (_, index) => ({ name: `h${index}` }));
    await controller.addExperiment({ name: experiment, hosts: names });
    const startedMs = performance.now();
    await pool.connectAll(names);
    const connectMs = performance.now() - startedMs;
    const measured: ScaleMeasurement[] = [];
    for (let round = 0; round < rounds; round++) {
      measured.push({
        ...(await takeOne(controller, agents, options.signal)),
        connectMs,
        peakRssMiB: rss.peakMiB,
      });
    }
    return measured;
  } finally {
    rss.stop();
    await controller.close();
    await pool.close();
    catalog.close();
    await agents.stop();
    await rm(directory, { recursive: true });
  }
}

async function takeOne(controller: Controller, agents: AgentProcess, signal: AbortSignal) {
  const cpuBefore = process.cpuUsage();
  const agentsBeforeMs = agents.cpuMs;
  const startedAtMs = Date.now();
  const startedMs = performance.now();
  const { id, snapshot } = controller.createSnapshot(experiment, snapshotInput);
  const reports = { toReportsMs: NaN, cpuToReportsMs: NaN, agentsCpuToReportsMs: NaN };
  for await (const { progress, operation } of controller.operationEvents(id, { signal })) {
    // The first phase that begins when all have been cut.
    if (progress?.step === 'freeze') {
      reports.toReportsMs = performance.now() - startedMs;
      reports.cpuToReportsMs = cpuMsSince(cpuBefore);
      reports.agentsCpuToReportsMs = agents.cpuMs - agentsBeforeMs;
    }
    if (operation !== undefined && operation.state !== 'succeeded')
      throw new StaghornError(
        operation.error?.code ?? 'internal',
        operation.error?.detail ?? operation.state,
      );
  }
  const toSealedMs = performance.now() - startedMs;
  const { stoppedAt, skewNs } = controller.getSnapshot(snapshot!);
  const toCutMs = Date.parse(stoppedAt!) - startedAtMs + skewNs / 1e6;
  return { ...reports, toCutMs, toSealedMs, cpuMs: cpuMsSince(cpuBefore) };
}

function cpuMsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/** The most memory that was seen resident; the process's own high-water mark would count what was before. */
class PeakRss {
  #peakBytes = process.memoryUsage.rss();
  readonly #timer = setInterval(() => this.#look(), 100);

  get peakMiB(): number {
    this.#look();
    return this.#peakBytes / 2 ** 20;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    this.#peakBytes = Math.max(this.#peakBytes, process.memoryUsage.rss());
  }
}
