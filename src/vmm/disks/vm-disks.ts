import { randomBytes } from 'node:crypto';
import { open } from 'node:fs/promises';

import { StaghornError } from '../../errors/index.ts';
import { isEvent, QmpError, type QmpClient } from '../../qmp/index.ts';
import type { StoredDisk } from '../../store/stored-disks.ts';
import type { QemuProcess } from '../qemu-process.ts';
import type { DiskDirectory } from './disk-directory.ts';
import { deleteNode, dropIdleNodes, endJobs, namePrefix } from './jobs.ts';
import type { LiveDisk } from './live-disk.ts';
import { readDisks } from './read-disks.ts';
import { storeDisks } from './store-disks.ts';

interface Overlay {
  readonly disk: LiveDisk;
  readonly node: string;
  readonly path: string;
}

/** At the cut QEMU has to write back what is left; the rest must not wait for a slow host. */
const transactionBoundMs = 10_000;

/**
 * The disks of a VM through a snapshot: overlays are made ready before time stops, and at the cut one transaction
 * makes every image below them immutable.
 *
 * Invariants:
 * - before the transaction nothing of the VM has changed, and `close` takes the overlays back;
 * - after it the VM goes on in its overlays, whatever becomes of the snapshot.
 */
export class VmDisks {
  readonly #process: QemuProcess;
  readonly #qmp: QmpClient;
  #disks: readonly LiveDisk[];
  #directory: DiskDirectory | undefined;
  #overlays: Overlay[] = [];
  #images: readonly string[] = [];
  #cut = false;
  #starved = false;

  constructor(process: QemuProcess, qmp: QmpClient, disks: readonly LiveDisk[]) {
    this.#process = process;
    this.#qmp = qmp;
    this.#disks = disks;
  }

  get writable(): readonly LiveDisk[] {
    return this.#disks.filter(({ readOnly }) => !readOnly);
  }

  /** How many images the guest's reads may go through, of the disk that has most. */
  get longestChain(): number {
    return Math.max(0, ...this.writable.map(({ chain }) => chain.length + (this.#cut ? 1 : 0)));
  }

  /** Makes the overlays ready; the VM runs and notices nothing. */
  async prepare(directory: DiskDirectory): Promise<void> {
    if (this.writable.length === 0) return;
    this.#directory = directory;
    if ((await endJobs(this.#qmp)) > 0) this.#disks = (await readDisks(this.#process, this.#qmp)).disks;
    await dropIdleNodes(this.#qmp);
    this.#images = this.#disks.flatMap(({ chain }) => chain.map(({ path }) => path));
    directory.hold(this.#images);
    for (const disk of this.writable) await this.#addOverlay(disk, directory);
    await Promise.all(this.writable.map((disk) => this.#writeBack(disk)));
  }

  /** Time stands still: from here on every image that the snapshot names stays as it is. */
  async cut(): Promise<void> {
    if (this.#overlays.length === 0) return;
    const actions = this.#overlays.map(({ disk, node }) => ({
      type: 'blockdev-snapshot',
      data: { node: disk.node, overlay: node },
    }));
    await this.#qmp.execute('transaction', { actions }, { timeoutMs: transactionBoundMs });
    this.#cut = true;
  }

  /** What the manifest says of them; the VM may run again. */
  async store(signal: AbortSignal): Promise<StoredDisk[]> {
    if (this.#directory === undefined) return storeDisks(this.#disks, this.#process, null, signal);
    return storeDisks(this.#disks, this.#process, this.#directory, signal);
  }

  /** Calls `onError` when a write fails in such a way that the VM stops: its disk is full, say. */
  watch(onError: (error: StaghornError) => void): () => void {
    const { name: vm } = this.#process;
    return this.#qmp.onEvent((event) => {
      if (!isEvent(event, 'BLOCK_IO_ERROR') || event.data.action !== 'stop') return;
      this.#starved ||= event.data.nospace === true;
      const { device, 'node-name': node, operation, reason, nospace } = event.data;
      const what = `VM ${vm}: disk ${device || (node ?? '')}: ${operation} failed: ${reason}`;
      onError(new StaghornError(nospace === true ? 'disk-full' : 'vm-failed', what, { context: { vm } }));
    });
  }

  /** A VM that stopped for want of space tries again: what was removed in the meantime may be enough. */
  async goOn(): Promise<void> {
    if (!this.#starved) return;
    const { status } = await this.#qmp.execute('query-status');
    if (status === 'io-error') await this.#qmp.execute('cont');
  }

  /** Lets go. Overlays that were not needed are gone afterwards. May be called again. */
  async close(): Promise<void> {
    const directory = this.#directory;
    if (directory === undefined) return;
    this.#directory = undefined;
    const unused: string[] = [];
    for (const { node, path } of this.#overlays.splice(0)) {
      // Also asked where the cut failed half-way: QEMU deletes no node that a disk uses.
      if (!this.#cut && (await this.#drop(node))) unused.push(path);
      else directory.letGo([path]);
    }
    await directory.remove(unused);
    directory.letGo(this.#images);
  }

  async #drop(node: string): Promise<boolean> {
    try {
      return await deleteNode(this.#qmp, node);
    } catch (error) {
      // The connection is gone: whether QEMU has the overlay in use is seen when unused ones are collected.
      if (error instanceof QmpError) return false;
      throw error;
    }
  }

  async #addOverlay(disk: LiveDisk, directory: DiskDirectory): Promise<void> {
    const { name: vm, uid, gid } = this.#process;
    const { virtualBytes, chain, cache, detectZeroes } = disk;
    const [top] = chain;
    const path = await directory.createOverlay({ vm, owner: { uid, gid }, virtualBytes, backing: top! });
    const node = `${namePrefix}${randomBytes(6).toString('hex')}`;
    const caching = { direct: cache.direct, 'no-flush': cache.noFlush };
    this.#overlays.push({ disk, node, path });
    await this.#qmp.execute('blockdev-add', {
      driver: 'qcow2',
      'node-name': node,
      backing: null,
      cache: caching,
      discard: 'unmap',
      'detect-zeroes': detectZeroes,
      file: { driver: 'file', filename: path, cache: caching, discard: 'unmap' },
    });
  }

  /** QEMU waits for the host's disk when it stops: what is written back now need not be then. */
  async #writeBack({ chain: [top], cache }: LiveDisk): Promise<void> {
    if (cache.noFlush) return;
    const file = await open(`/proc/${this.#process.pid}/fd/${top!.file.fd}`, 'r');
    try {
      await file.datasync();
    } finally {
      await file.close();
    }
  }
}
