import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../../errors/index.ts';
import { sendDescriptor } from '../../native/descriptors.ts';
import { RamStream } from '../../native/ram-stream.ts';
import type { SavedRam } from '../../native/ram.ts';
import type { QmpClient } from '../../qmp/index.ts';
import type { Capability } from '../../qmp/migration-types.ts';
import { blocksOf } from '../ram-layout.ts';
import { BlockFiles } from './block-files.ts';
import type { Block, SaveTarget, WriteOptions } from './keeper.ts';

const fdName = 'staghorn-ram';
const unlimited = 2 ** 40;
const commandTimeoutMs = 30_000;
const endPollMs = 5;

interface Settings {
  readonly capabilities: readonly { readonly capability: Capability; readonly state: boolean }[];
  readonly parameters: { readonly 'max-bandwidth': number; readonly 'downtime-limit': number };
}

/**
 * A QEMU's migration into files of ours, one a RAM block. What QEMU was set to is put back at the end.
 * Invariant: whoever lets go of it, or dies, ends the migration; the VM runs or stands as before.
 */
export class OutgoingMigration {
  readonly #qmp: QmpClient;
  readonly #files: BlockFiles;
  readonly #stream: RamStream;
  readonly #before: Settings;
  readonly #capabilities: readonly Capability[];
  readonly #work = new AbortController();
  /** Only one at a time reads the stream. */
  #receiving: Promise<unknown> = Promise.resolve();
  #closed: Promise<void> | undefined;

  private constructor(parts: {
    qmp: QmpClient;
    files: BlockFiles;
    stream: RamStream;
    before: Settings;
    capabilities: readonly Capability[];
  }) {
    this.#qmp = parts.qmp;
    this.#files = parts.files;
    this.#stream = parts.stream;
    this.#before = parts.before;
    this.#capabilities = parts.capabilities;
  }

  /**
   * @param capabilities those that are to be on; all others are switched off
   * @param options.plugged QEMU waits with its first byte, when it has set up (migration/ram.c, ram_save_setup), until
   *   something is received
   */
  static async prepare(
    { qmp, layout, directory, maxBytesPerSecond }: SaveTarget,
    capabilities: readonly Capability[],
    { plugged = false }: { plugged?: boolean } = {},
  ): Promise<OutgoingMigration> {
    const files = await BlockFiles.create(directory, blocksOf(layout));
    let stream: RamStream | undefined;
    let before: Settings | undefined;
    try {
      stream = new RamStream(files.descriptors, { plugged });
      before = await readSettings(qmp);
      await set(qmp, {
        capabilities: before.capabilities.map(({ capability }) => ({
          capability,
          state: capabilities.includes(capability),
        })),
        // With no downtime allowed QEMU sends every page once and then ends: it looks for dirty ones only when it
        // believes that it could end in time (migration/ram.c, ram_save_pending).
        parameters: { 'max-bandwidth': maxBytesPerSecond || unlimited, 'downtime-limit': 0 },
      });
      const getfd = qmp.prepare('getfd', { fdname: fdName }, { timeoutMs: commandTimeoutMs });
      await sendDescriptor({ socketFd: qmp.fd, fd: stream.writeFd, bytes: getfd.bytes });
      await getfd.reply;
      stream.closeWriteEnd();
      return new OutgoingMigration({ qmp, files, stream, before, capabilities });
    } catch (error) {
      stream?.close();
      if (before !== undefined) await set(qmp, before).catch(() => undefined);
      await files.close();
      throw error;
    }
  }

  async start(): Promise<void> {
    await this.#qmp.execute('migrate', { uri: `fd:${fdName}` }, { timeoutMs: commandTimeoutMs });
  }

  /** Takes RAM until so many pages at most have never come. */
  async receiveUntil(pagesLeft: number): Promise<void> {
    await this.#receive(pagesLeft);
  }

  /** Takes the first page of RAM, which comes at once when QEMU begins to send it. */
  async receiveFirst(): Promise<void> {
    await this.#receive(Number.MAX_SAFE_INTEGER);
  }

  /** The VM stands still, and waits for the rest. */
  async hurry(): Promise<void> {
    await this.#qmp.execute('migrate-set-parameters', { 'max-bandwidth': unlimited });
  }

  /** Takes all the rest. @throws if QEMU failed */
  async receiveAll(): Promise<void> {
    await this.#receive(0).catch(async (error: unknown) => {
      this.#work.signal.throwIfAborted();
      const { 'error-desc': told } = await this.#qmp.execute('query-migrate');
      throw told === undefined ? error : new Error(`QEMU's migration failed: ${told}`, { cause: error });
    });
    await this.#ended();
  }

  #receive(pagesLeft: number): Promise<unknown> {
    const receiving = this.#stream.receive(pagesLeft, this.#work.signal);
    this.#receiving = receiving.catch(() => undefined);
    return receiving;
  }

  write(block: Block, file: string, options: WriteOptions): Promise<SavedRam> {
    return this.#files.write(block, file, options);
  }

  /** May be called again. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    // First nobody writes to the files any more, then their numbers are free.
    // A background snapshot is taken to its end: QEMU 7.2, cut off in the midst, takes no other one ever after.
    const inBackground = this.#capabilities.includes('background-snapshot');
    if (!inBackground) this.#work.abort(new StaghornError('cancelled', 'the migration is given up'));
    await this.#receiving;
    this.#stream.close();
    await this.#files.close();
    if (this.#qmp.isClosed) return;
    // Where it was never started, QEMU still has the pipe's end.
    await this.#qmp.execute('closefd', { fdname: fdName }).catch(() => undefined);
    await this.#ended();
    await set(this.#qmp, this.#before);
  }

  /** Until QEMU takes no part in it any more. */
  async #ended(): Promise<void> {
    for (;;) {
      const { status = 'none' } = await this.#qmp.execute(
        'query-migrate',
        {},
        { timeoutMs: commandTimeoutMs },
      );
      if (['none', 'completed', 'failed', 'cancelled'].includes(status)) return;
      await delay(endPollMs);
    }
  }
}

async function readSettings(qmp: QmpClient): Promise<Settings> {
  const capabilities = await qmp.execute('query-migrate-capabilities');
  const parameters = await qmp.execute('query-migrate-parameters');
  return {
    // Events are told or not: they have no part in what is sent.
    capabilities: capabilities.filter(({ capability }) => capability !== 'events'),
    parameters: {
      'max-bandwidth': parameters['max-bandwidth'] ?? unlimited,
      'downtime-limit': parameters['downtime-limit'] ?? 300,
    },
  };
}

async function set(qmp: QmpClient, { capabilities, parameters }: Settings): Promise<void> {
  await qmp.execute('migrate-set-capabilities', { capabilities });
  await qmp.execute('migrate-set-parameters', parameters);
}
