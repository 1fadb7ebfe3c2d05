import { StaghornError } from '../../errors/index.ts';
import { readRingUsage } from '../../native/ring-usage.ts';

/** A ring that is this full ends the barrier: what comes until time goes on again needs room, too. */
const highWaterMark = 3 / 4;
const periodMs = 20;

/** Looks at the rings that keep frames while time stands still, so that none of them ever has no room. */
export class BufferWatch {
  readonly #ringMapIds: readonly number[];
  #timer: NodeJS.Timeout | undefined;

  constructor(ringMapIds: readonly number[]) {
    this.#ringMapIds = ringMapIds;
  }

  /** @param onFull told once, with a StaghornError 'frame-buffer-full' */
  start(onFull: (error: StaghornError) => void): void {
    this.#timer = setInterval(() => {
      const error = this.look();
      if (error === null) return;
      this.stop();
      onFull(error);
    }, periodMs);
  }

  /** Null, or that a ring is nearly full. */
  look(): StaghornError | null {
    for (const id of this.#ringMapIds) {
      const { usedBytes, sizeBytes } = readRingUsage(id);
      if (usedBytes < sizeBytes * highWaterMark) continue;
      const text = `held frames take ${usedBytes} of the ${sizeBytes} bytes of the frame buffer, and more are coming; give the experiment a larger frameBufferBytes`;
      return new StaghornError('frame-buffer-full', text);
    }
    return null;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
