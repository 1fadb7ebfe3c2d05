import { loadAddon } from './addon.ts';
import { closeDescriptor } from './descriptors.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

/** A RAM block of the stream, and the file that its pages go to, sparse. Blocks that have none are passed over. */
export interface StreamedBlock {
  readonly name: string;
  readonly fd: number;
}

export interface Received {
  /** Each counts once, however often it came. */
  readonly pagesArrived: number;
  readonly atEnd: boolean;
}

type NativeStream = object;

interface RamStreamAddon {
  openRamStream(
    blocks: readonly StreamedBlock[],
    plugged: boolean,
  ): { native: NativeStream; writeFd: number };
  startReceive(stream: NativeStream, pagesLeft: number): NativeJob<Received>;
  closeRamStream(stream: NativeStream): void;
}

const addon = loadAddon() as RamStreamAddon;

/**
 * A pipe that a QEMU migrates into (native/ram/ram-stream.cc). Nobody reads it but `receive`: between two of them QEMU
 * can send no more than the pipe holds.
 */
export class RamStream {
  /** The pipe's writing end, to be handed to QEMU and then closed here. */
  readonly writeFd: number;
  readonly #native: NativeStream;
  #writeEndOpen = true;

  /** @param plugged whether the pipe is full until `receive` is called: QEMU waits with its first byte */
  constructor(blocks: readonly StreamedBlock[], { plugged }: { plugged: boolean }) {
    const { native, writeFd } = addon.openRamStream(blocks, plugged);
    this.#native = native;
    this.writeFd = writeFd;
  }

  closeWriteEnd(): void {
    if (this.#writeEndOpen) closeDescriptor(this.writeFd);
    this.#writeEndOpen = false;
  }

  /**
   * Reads until a page has come and at most so many have never come; with 0, until QEMU has ended the stream. One at a time.
   * Rejects with a system error: EPIPE if the stream ends before all pages came, EPROTO if it is none that is known.
   */
  receive(pagesLeft: number, signal?: AbortSignal): Promise<Received> {
    return runJob(() => addon.startReceive(this.#native, pagesLeft), signal);
  }

  /** QEMU's migration fails if it is still under way. May be called again. */
  close(): void {
    this.closeWriteEnd();
    addon.closeRamStream(this.#native);
  }
}
