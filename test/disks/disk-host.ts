import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { AgentService } from '../../src/agent/agent-service.ts';
import { monotonicNs } from '../../src/native/clock.ts';
import { newSnapshotId } from '../../src/protocol/names.ts';
import {
  agentContract,
  type AgentContract,
  type AgentMethod,
  type AgentParams,
  type AgentResult,
} from '../../src/protocol/rpc.ts';
import { QmpClient } from '../../src/qmp/index.ts';
import { createRpcClient, type RpcClient } from '../../src/transport/rpc.ts';
import { readOpenFiles } from '../../src/vmm/disks/open-files.ts';
import { findQemuProcesses } from '../../src/vmm/qemu-process.ts';
import { NetworkLab } from '../network/network-lab.ts';
import { OpenVSwitch } from '../network/open-vswitch.ts';
import { eventually, qemuBinary } from '../native/qemu.ts';

/** What the guest of counter-guest.S says of itself. */
export interface GuestReport {
  readonly count: number;
  /** A bit for each disk that did not hold what the guest had last written. */
  readonly strangeDisks: number;
  readonly failedCalls: number;
  readonly disks: number;
}

const silent = () => undefined;
/** Tests may run beside others. */
const leadNs = 200_000_000n;

/** A name that no other test's QEMU has: an agent chooses VMs by their names. */
export const theVm = `vm-${process.pid}`;

/** An agent in this process, an Open vSwitch of its own, and VMs whose guests do nothing but use their disks. */
export class DiskHost {
  readonly directory = mkdtempSync(join(tmpdir(), `staghorn-disks-${process.pid}-`));
  readonly images = join(this.directory, 'images');
  readonly store = join(this.directory, 'store');
  /** What the agent logged that is worth a warning. */
  readonly warnings: string[] = [];
  /** Why it gave barriers up. */
  readonly lost: string[] = [];
  readonly manifests = new Map<string, string>();
  readonly #lab = NetworkLab.enter();
  readonly #floppy = join(this.directory, 'floppy.img');
  readonly #children: ChildProcess[] = [];
  readonly #last: (() => unknown)[] = [];
  #ovs: OpenVSwitch | undefined;
  readonly #service: AgentService;
  #agent: ChildProcess | undefined;
  #client: RpcClient<AgentContract> | undefined;

  private constructor() {
    this.#service = this.#newAgent();
  }

  static async start(): Promise<DiskHost> {
    const host = new DiskHost();
    try {
      execFileSync('mkdir', [host.images]);
      const source = join(import.meta.dirname, 'counter-guest.S');
      const linking = '-Wl,-Ttext=0x7c00,--oformat=binary,--build-id=none';
      execFileSync('gcc', ['-m32', '-nostdlib', '-static', linking, '-o', host.#floppy, source]);
      execFileSync('truncate', ['-s', '1440K', host.#floppy]);
      host.#ovs = await OpenVSwitch.start();
      return host;
    } catch (error) {
      await host.stop();
      throw error;
    }
  }

  #newAgent(): AgentService {
    const log = {
      debug: silent,
      info: silent,
      warn: (_: object, text: string) => this.warnings.push(text),
      error: silent,
    };
    const notices = {
      progress: silent,
      barrierLost: (_: string, error: Error) => this.lost.push(error.message),
    };
    const directories = { store: this.store, run: this.#run };
    return new AgentService({ directories, notices, log, recovered: null });
  }

  /** From here on the agent is a process of its own, as it is built; @returns its PID. */
  async startAgent(): Promise<number> {
    const program = join(import.meta.dirname, '../../dist/agent/main.js');
    const agent = spawn(process.execPath, [program, '--store', this.store, '--run', this.#run], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#agent = agent;
    this.#children.push(agent);
    this.#client = createRpcClient(agentContract, {
      readable: agent.stdout,
      writable: agent.stdin,
      host: 'here',
    });
    await this.call('clock', {});
    return agent.pid!;
  }

  /** Kills it, and waits until its guardian has put right what it left. */
  async killAgent(): Promise<void> {
    this.#agent?.kill('SIGKILL');
    this.#client = undefined;
    const intents = join(this.#run, 'barriers');
    await eventually(async () => readdirSync(intents).length === 0, 30_000);
    await eventually(async () => (await readOpenFiles(this.#agent!.pid!)).length === 0);
  }

  get #run(): string {
    return join(this.directory, 'run');
  }

  image(name: string): string {
    return join(this.images, name);
  }

  qemuImg(...args: string[]): string {
    return execFileSync('qemu-img', args, { cwd: this.images, encoding: 'utf8' });
  }

  qmpSocket(vm: string): string {
    return join(this.directory, `${vm}.qmp`);
  }

  /** Starts a VM in the directory of images; its guest counts on as many disks as it finds. */
  async launch(vm: string, args: readonly string[], disks: number): Promise<void> {
    const floppy = `if=floppy,format=raw,read-only=on,file=${this.#floppy}`;
    const common = [
      ...['-accel', 'tcg', '-M', 'pc', '-m', '16', '-display', 'none', '-nodefaults', '-vga', 'none'],
      ...['-name', vm, '-qmp', `unix:${this.qmpSocket(vm)},server=on,wait=off`],
      ...['-drive', floppy, '-boot', 'a'],
    ];
    const child = spawn(qemuBinary, [...common, ...args], {
      cwd: this.images,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    this.#children.push(child);
    const report = await eventually(async () => {
      if (child.exitCode !== null) throw new Error(`QEMU ended with ${child.exitCode}`);
      const now = await this.report(vm).catch(() => undefined);
      return now !== undefined && now.count >= 3 && now.count < 1 << 20 ? now : undefined;
    }, 30_000);
    if (report.disks !== disks) throw new Error(`the guest found ${report.disks} disks instead of ${disks}`);
  }

  /** Runs something on the VM's QMP socket. */
  async qmp<T>(vm: string, work: (qmp: QmpClient) => Promise<T>): Promise<T> {
    const qmp = await QmpClient.connect({ path: this.qmpSocket(vm), timeoutMs: 10_000 });
    try {
      return await work(qmp);
    } finally {
      await qmp.close();
    }
  }

  async report(vm: string): Promise<GuestReport> {
    const text = await this.qmp(vm, (qmp) =>
      qmp.execute('human-monitor-command', { 'command-line': 'xp /4xw 0x8000' }),
    );
    const words = [...text.matchAll(/0x([0-9a-f]{8})\b/g)].map(([, digits]) => Number.parseInt(digits!, 16));
    return { count: words[0]!, strangeDisks: words[1]!, failedCalls: words[2]!, disks: words[3]! };
  }

  /** Waits until the guest has counted so much further. */
  async countsOn(vm: string, by = 3): Promise<GuestReport> {
    const { count } = await this.report(vm);
    return eventually(async () => {
      const now = await this.report(vm);
      return now.count >= count + by ? now : undefined;
    }, 30_000);
  }

  /** A call as the agent's peer would make it: checked, and with every default. */
  async call<M extends AgentMethod>(method: M, params: AgentParams<M>): Promise<AgentResult<M>> {
    if (this.#client !== undefined) return this.#client.call(method, params, { timeoutMs: 60_000 });
    const handler = this.#service.handlers[method] as (
      params: AgentParams<M>,
      context: { signal: AbortSignal },
    ) => Promise<AgentResult<M>>;
    return handler(params, { signal: new AbortController().signal });
  }

  async arm(vms: readonly string[], barrier: string, snapshot: string): Promise<AgentResult<'arm'>> {
    return this.call('arm', {
      ...{ barrier, snapshot, experiment: 'disks', vms: [...vms], method: 'auto', parent: null },
      ...{ leaseMs: 60_000, frameBufferBytes: 1 << 20, externalPorts: [], externalFrames: 'hold' },
      ram: { compression: 'none', level: 1, maxBytesPerSecond: 0 },
    });
  }

  /** Goes up to the end of the cut. @returns what it takes to let time go on */
  async cut(barrier: string): Promise<AgentResult<'save'>> {
    await this.call('cut', { barrier, atNs: monotonicNs() + leadNs });
    const [saved] = await Promise.all([
      this.call('save', { barrier }),
      this.call('drain', { barrier, boundMs: 1_000, quietMs: 1 }),
    ]);
    return saved;
  }

  async resume(barrier: string, vms: readonly string[]): Promise<void> {
    const atNs = monotonicNs() + leadNs / 100n;
    await this.call('resume', { barrier, vms: vms.map((name) => ({ name, atNs })) });
  }

  async snapshot(...vms: string[]): Promise<string> {
    const [barrier, snapshot] = [randomUUID(), newSnapshotId(new Date(), randomUUID().slice(0, 6))];
    await this.arm(vms, barrier, snapshot);
    try {
      await this.cut(barrier);
      await this.resume(barrier, vms);
      await Promise.all([this.call('settle', { barrier }), this.call('store', { barrier })]);
      const createdAt = new Date().toISOString();
      const sealed = await this.call('commit', { barrier, snapshot, experiment: 'disks', createdAt });
      this.manifests.set(snapshot, sealed.manifestSha256);
      return snapshot;
    } catch (error) {
      await this.call('abort', { barrier, reason: 'the test gives up' });
      throw error;
    }
  }

  async restore(snapshot: string): Promise<void> {
    const barrier = randomUUID();
    const manifestSha256 = this.manifests.get(snapshot)!;
    await this.call('restoreCheck', {
      ...{ barrier, snapshot, manifestSha256, replace: true, verify: true, vms: null, clock: 'hidden' },
      ...{ moved: false, placement: null },
      ...{ leaseMs: 60_000, frameBufferBytes: 1 << 20 },
    });
    try {
      const { vms } = await this.call('restorePrepare', { barrier, elapsedNs: 0n });
      await this.call('restoreDrain', { barrier, boundMs: 1_000, quietMs: 1, alone: true });
      await this.resume(barrier, vms);
      await this.call('settle', { barrier });
    } catch (error) {
      await this.call('abort', { barrier, reason: 'the test gives up' });
      throw error;
    }
  }

  /** What the guest had counted to when the snapshot was taken; its disks must hold the same. */
  countAtCut(vm: string, snapshot: string): number {
    return readFileSync(join(this.store, snapshot, `${vm}.ram`)).readUInt32LE(0x8000);
  }

  /** The images that the agent made and has not removed. */
  overlays(): string[] {
    const path = join(this.store, 'disks');
    return existsSync(path) ? readdirSync(path).map((name) => join(path, name)) : [];
  }

  async pid(vm: string): Promise<number> {
    const own = (await findQemuProcesses()).find(({ qmpSockets }) => qmpSockets.includes(this.qmpSocket(vm)));
    if (own === undefined) throw new Error(`VM ${vm} does not run`);
    return own.pid;
  }

  async kill(vm: string): Promise<void> {
    const pid = await this.pid(vm);
    process.kill(pid, 'SIGKILL');
    await eventually(async () => (await this.pid(vm).catch(() => null)) !== pid);
  }

  /** Something to undo when all that runs here has ended. */
  atEnd(step: () => unknown): void {
    this.#last.push(step);
  }

  async stop(): Promise<void> {
    this.#agent?.kill('SIGKILL');
    await this.#service.close('the test ends');
    const own = (await findQemuProcesses()).filter(({ qmpSockets }) =>
      qmpSockets.some((path) => path.startsWith(`${this.directory}/`)),
    );
    for (const { pid } of own) process.kill(pid, 'SIGKILL');
    for (const child of this.#children)
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    await this.#ovs?.stop();
    this.#lab.leave();
    for (const step of this.#last.reverse()) await step();
    rmSync(this.directory, { recursive: true });
  }
}
