import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { RamStorage } from '../../src/agent/snapshot/ram-storage.ts';
import { StoppedVmSaver, type StoredVmParts } from '../../src/agent/snapshot/stopped-vm-saver.ts';
import { writeMemory } from '../../src/native/ram.ts';
import { isErrno } from '../../src/native/rtnetlink.ts';
import type { SaveMethod } from '../../src/protocol/vm.ts';
import { SnapshotStore, type PartialSnapshot } from '../../src/store/snapshot-directory.ts';
import { disksOf } from '../../src/vmm/disks/collect.ts';
import { formatCommandLine } from '../../src/vmm/command-line.ts';
import { ControlledVm } from '../../src/vmm/controlled-vm.ts';
import { launchPaused, loadDeviceState, type LaunchSpec } from '../../src/vmm/launch.ts';
import { readQemuProcess } from '../../src/vmm/qemu-process.ts';
import { blocksOf } from '../../src/vmm/ram-layout.ts';
import { terminateVm } from '../../src/vmm/terminate.ts';
import { eventually, readMemory, TestQemu } from '../native/qemu.ts';

const inFull = { compression: 'none', level: 3, maxBytesPerSecond: 0 } as const;
const surroundings = { links: [], switchPorts: new Map() };
const counterAddress = 0x8000n;
/** Above everything that the guest and its BIOS touch. */
const patternOffset = 24n << 20n;
const patternBytes = 4 << 20;

/** What guest RAM was at one instant: each object's content, main memory first. */
export type Contents = readonly Buffer[];

/** A VM whose guest counts, under control as an agent has it. Whatever was started ends with `close`. */
export class SavedVm {
  readonly #root: string;
  #directory: PartialSnapshot | undefined;
  #snapshots = 0;
  #vm: ControlledVm;

  private constructor(vm: ControlledVm, root: string) {
    this.#vm = vm;
    this.#root = root;
  }

  /** @param args of QEMU; @param prepare is called before it is taken under control */
  static async start(
    args: readonly string[],
    { parent = tmpdir(), prepare = async () => undefined }: StartOptions = {},
  ): Promise<SavedVm> {
    const root = await mkdtemp(join(parent, 'staghorn-methods-'));
    const qemu = await TestQemu.startCounting(args);
    try {
      await prepare(qemu);
      qemu.qmp.socket.destroy();
      const vm = await ControlledVm.open((await readQemuProcess(qemu.pid))!, surroundings);
      const saved = new SavedVm(vm, root);
      saved.#stopFirst = () => qemu.stop();
      return saved;
    } catch (error) {
      await qemu.stop();
      await rm(root, { recursive: true, force: true });
      throw error;
    }
  }

  #stopFirst: () => Promise<void> = async () => undefined;

  get vm(): ControlledVm {
    return this.#vm;
  }

  get #ram() {
    const { main, backends } = this.#vm.layout;
    return [main, ...backends.map(({ block }) => block)];
  }

  /** Fills a part of each memory object. */
  async fill(text: string): Promise<void> {
    const bytes = Buffer.alloc(patternBytes, text);
    const { pid } = this.#vm.process;
    for (const { address } of this.#ram)
      await eventually(async () => isWritten({ pid, address: address + patternOffset, bytes }));
  }

  async contents(): Promise<Contents> {
    const { pid } = this.#vm.process;
    return Promise.all(this.#ram.map(({ address, length }) => readMemory(pid, address, length)));
  }

  async counter(): Promise<number> {
    const { address } = this.#vm.layout.main;
    return (await readMemory(this.#vm.process.pid, address + counterAddress, 4)).readUInt32LE();
  }

  async countsOn(): Promise<void> {
    const before = await this.counter();
    await eventually(async () => (await this.counter()) !== before);
  }

  /** Saves it, with `meanwhile` called when it runs again. @returns what it was and what is stored of it */
  async save(
    method: SaveMethod,
    meanwhile: () => Promise<void>,
  ): Promise<{ then: Contents; count: number; parts: StoredVmParts }> {
    const signal = AbortSignal.timeout(30_000);
    const snapshot = `20261122T000000Z-00000${this.#snapshots++}`;
    const store = new SnapshotStore(this.#root);
    const directory = await store.create(snapshot);
    this.#directory = directory;
    await this.#vm.prepareSave(method, { directory: directory.path, maxBytesPerSecond: 0 }, disksOf(store));
    const storage = await RamStorage.prepare({ parent: null, ram: inFull }, store, [this.#vm], signal);
    const saver = new StoppedVmSaver(this.#vm, method, directory, storage);
    await this.#vm.qmp.execute('stop');
    const kept = await saver.keep(signal, () => undefined);
    const then = await this.contents();
    const count = await this.counter();
    kept.ram.held?.end();
    await this.#vm.qmp.execute('cont');
    await meanwhile();
    const parts = await saver.store(signal, () => undefined);
    return { then, count, parts };
  }

  /** Keeps it and lets go of it, without a word from us to go on. @returns whether QEMU resumed it before and after */
  async letGo(method: SaveMethod): Promise<{ resumedBefore: boolean; resumedAfter: boolean }> {
    const store = new SnapshotStore(this.#root);
    const directory = await store.create(`20261122T000000Z-00000${this.#snapshots++}`);
    await this.#vm.prepareSave(method, { directory: directory.path, maxBytesPerSecond: 0 }, disksOf(store));
    await this.#vm.qmp.execute('stop');
    let resumed = false;
    const ignore = this.#vm.qmp.onEvent(({ name }) => (resumed ||= name === 'RESUME'));
    const kept = await this.#vm.keep();
    const resumedBefore = resumed;
    kept.ram.held?.end();
    await this.#vm.releaseRam();
    ignore();
    await directory.discard();
    return { resumedBefore, resumedAfter: resumed };
  }

  /** Keeps it as for a snapshot that is then given up: at once, or when it has stopped and been kept. */
  async giveUp(method: SaveMethod, when: 'armed' | 'kept'): Promise<void> {
    const store = new SnapshotStore(this.#root);
    const directory = await store.create(`20261122T000000Z-00000${this.#snapshots++}`);
    await this.#vm.prepareSave(method, { directory: directory.path, maxBytesPerSecond: 0 }, disksOf(store));
    if (when === 'kept') {
      await this.#vm.qmp.execute('stop');
      const kept = await this.#vm.keep();
      kept.ram.held?.end();
      await this.#vm.qmp.execute('cont');
    }
    await this.#vm.releaseRam();
    await directory.discard();
  }

  /** Ends the VM and starts it again from what is stored, paused. */
  async restore(parts: StoredVmParts): Promise<void> {
    const spec = this.#launchSpec(parts);
    await this.#vm.close();
    await terminateVm(this.#vm.process);
    const launched = await launchPaused(spec);
    await loadDeviceState(launched, spec, await readFile(this.#path(parts.state.file)));
    this.#vm = await ControlledVm.over(launched.process, launched, surroundings, { resumes: true });
  }

  #launchSpec({ ram, memory }: StoredVmParts): LaunchSpec {
    const { process, vm } = this.#vm;
    return {
      name: process.name,
      exe: process.exe,
      args: formatCommandLine(process.options),
      cwd: process.cwd,
      uid: process.uid,
      gid: process.gid,
      qmpSocket: vm.qmpSocket!,
      machineType: vm.machineType!,
      ramFile: this.#path(ram.file),
      ramBytes: ram.bytes,
      backends: memory.map(({ id, device, ram: { file, bytes } }) => {
        return { id, device, file: this.#path(file), bytes };
      }),
      logFile: this.#path('qemu.log'),
    };
  }

  #path(file: string): string {
    return join(this.#directory!.path, file);
  }

  /** Every block's name and length, as QEMU has them. */
  get blocks(): { name: string; length: number }[] {
    return blocksOf(this.#vm.layout).map(({ name, length }) => ({ name, length }));
  }

  async close(): Promise<void> {
    await this.#vm.close();
    await terminateVm(this.#vm.process);
    await this.#stopFirst();
    await rm(this.#root, { recursive: true, force: true });
  }
}

interface StartOptions {
  /** Where the snapshot is written. */
  readonly parent?: string;
  readonly prepare?: (qemu: TestQemu) => Promise<unknown>;
}

/** Pages that a background snapshot still protects cannot be written from outside. */
function isWritten(write: Parameters<typeof writeMemory>[0]): boolean {
  try {
    writeMemory(write);
    return true;
  } catch (error) {
    if (isErrno(error, 'EIO')) return false;
    throw error;
  }
}
