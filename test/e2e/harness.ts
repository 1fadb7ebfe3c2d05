import { readFile } from 'node:fs/promises';

import { followOperation } from '../../src/cli/follow.ts';
import { OwnServer } from '../../src/demo/server.ts';
import { Guests, type LogOffsets } from '../../src/demo/guests.ts';
import {
  datagramFlaws,
  DropWatch,
  flawsOf,
  labDown,
  labStatus,
  labUp,
  parseLabFile,
  type Judgement,
  type Lab,
} from '../../src/lab/index.ts';
import { outside, vmFiles } from '../../src/lab/paths.ts';
import { experiment, operation, type Operation } from '../../src/protocol/resources.ts';
import { QmpClient } from '../../src/qmp/index.ts';

interface LabHost {
  readonly name: string;
  readonly clock?: { readonly monotonicOffsetSeconds: number };
}

const twoHosts: readonly LabHost[] = [{ name: 'h1' }, { name: 'h2' }];
const aVmEach = [
  { name: 'a', host: 'h1' },
  { name: 'b', host: 'h2' },
];

/** Guests report twice a second: most tests wait for reports several times. */
const probe = { reportIntervalMs: 500 };

/** A lab of two hosts, by default with a VM on each, on subnets of this process's own. */
export async function startLab(
  label: string,
  vms = aVmEach,
  hosts: readonly LabHost[] = twoHosts,
): Promise<Lab> {
  // Below those of test/lab; two checkouts may be tested at once.
  const subnet = 2 + (process.pid % 124);
  const name = `${label}-${process.pid}`;
  return labUp(
    parseLabFile(`name: ${name}
management: 198.18.${subnet}.0/24
underlay: 198.19.${subnet}.0/24
hosts: ${JSON.stringify(hosts)}
vms: ${JSON.stringify(vms.map((vm) => ({ probe, ...vm, memoryMiB: 96 })))}
`),
  );
}

/** A running server with the lab registered as an experiment of the same name. */
export class Bench {
  readonly lab: Lab;
  readonly server: OwnServer;
  readonly guests: Guests;
  #network: DropWatch | undefined;

  private constructor(lab: Lab, server: OwnServer) {
    this.lab = lab;
    this.server = server;
    this.guests = new Guests(lab);
  }

  static async start(lab: Lab): Promise<Bench> {
    const bench = new Bench(lab, await OwnServer.start());
    try {
      await bench.register();
      return bench;
    } catch (error) {
      await bench.server.stop();
      throw error;
    }
  }

  async register(
    change: (definition: { hosts: Record<string, unknown>[] }) => void = () => undefined,
  ): Promise<void> {
    const definition = JSON.parse(await readFile(this.lab.experimentFile, 'utf8')) as {
      hosts: Record<string, unknown>[];
    };
    change(definition);
    await this.server.client.json('POST', '/v1/experiments', experiment, { body: definition });
  }

  /** A moment to judge from: what the network drops by itself counts from here on. */
  async moment(): Promise<LogOffsets> {
    this.#network = await DropWatch.begin(this.lab);
    return this.guests.offsets();
  }

  /** What guests noticed, and what the network has dropped by itself since the last moment does not explain. */
  async flaws(judgement: Judgement): Promise<string[]> {
    return flawsOf(judgement, await this.#drops());
  }

  /** The same without what was sent again in streams, for tests whose VMs hang or end. */
  async datagramFlaws(judgement: Judgement): Promise<string[]> {
    return datagramFlaws(judgement, await this.#drops());
  }

  async #drops() {
    return (await this.#network?.drops()) ?? new Map<string, number>();
  }

  get path(): string {
    return `/v1/experiments/${this.lab.name}`;
  }

  start(method: string, path: string, body?: unknown): Promise<Operation> {
    return this.server.client.json(method, path, operation, body === undefined ? {} : { body });
  }

  /** Starts long work and waits until it has ended, however. `onStep` hears of each step as it begins. */
  async operate(
    method: string,
    path: string,
    body?: unknown,
    onStep?: (step: string) => void,
  ): Promise<Operation> {
    const { id } = await this.start(method, path, body);
    return this.finish(id, onStep);
  }

  /** Waits until an operation has ended, however. */
  finish(id: string, onStep?: (step: string) => void): Promise<Operation> {
    return followOperation(this.server.client, id, {
      signal: AbortSignal.timeout(90_000),
      onProgress: ({ step }) => onStep?.(step),
    });
  }

  async snapshot(body: unknown = {}): Promise<string> {
    const ended = await this.operate('POST', `${this.path}/snapshots`, body);
    if (ended.state !== 'succeeded') throw new Error(`snapshot ${ended.state}: ${ended.error?.detail}`);
    return ended.snapshot!;
  }
}

/** A lab and its bench, with all of its guests reporting. The lab goes again if it does not come that far. */
export async function startBench(file: string): Promise<{ lab: Lab; bench: Bench }> {
  const lab = await labUp(parseLabFile(file));
  let bench: Bench | undefined;
  try {
    bench = await Bench.start(lab);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    return { lab, bench };
  } catch (error) {
    await stopBench(bench, lab);
    throw error;
  }
}

/** Ends what `startBench` made, if it did. */
export async function stopBench(bench: Bench | undefined, lab: Lab | undefined): Promise<void> {
  try {
    await bench?.server.stop();
  } finally {
    await takeDown(lab);
  }
}

/** Kills the processes of every VM, and waits for nothing. */
export async function destroyVms(lab: Lab): Promise<void> {
  for (const { pid } of (await labStatus(lab.name)).vms) if (pid !== null) process.kill(pid, 'SIGKILL');
}

export async function takeDown(lab: Lab | undefined): Promise<void> {
  if (lab !== undefined) await labDown(lab.name);
}

/** A file of a host as this machine sees it. */
export const hostPath = (lab: Lab, host: string, path: string) => outside(lab.name, host, path);

/** What QEMU says of each VM; "gone" where none answers. */
export async function runStates(lab: Lab): Promise<string[]> {
  return Promise.all(
    lab.vms.map(async ({ name, host }) => {
      const path = hostPath(lab, host, vmFiles(name).qmp);
      const qmp = await QmpClient.connect({ path, timeoutMs: 2_000 }).catch(() => null);
      if (qmp === null) return 'gone';
      try {
        return (await qmp.execute('query-status')).status;
      } finally {
        await qmp.close();
      }
    }),
  );
}
