import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

interface StepResult {
  readonly readBytes: number;
  readonly writtenBytes: number;
  /** Compressing: all is out. Decompressing: a frame has just ended. */
  readonly isWhole: boolean;
}
type StartStep = (options: {
  readonly input: Uint8Array;
  readonly output: Uint8Array;
  readonly ends: boolean;
}) => NativeJob<StepResult>;

const addon = loadAddon() as {
  createZstdCompressor(level: number): StartStep;
  createZstdDecompressor(): StartStep;
};

const outputBytes = 512 * 1024;
const nothing = Buffer.alloc(0);

/** Compresses a stream into one zstd frame (RFC 8878) with a checksum. Takes no more than is asked of it. */
export async function* compressZstd(
  source: AsyncIterable<Uint8Array>,
  level: number,
): AsyncGenerator<Buffer, void, undefined> {
  const start = addon.createZstdCompressor(level);
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length;) {
      const { readBytes, output } = await step(start, chunk.subarray(at), false);
      at += readBytes;
      if (output.length > 0) yield output;
    }
  }
  for (let isWhole = false; !isWhole;) {
    const last = await step(start, nothing, true);
    isWhole = last.isWhole;
    if (last.output.length > 0) yield last.output;
  }
}

/**
 * The content of a stream of zstd frames, one after the other. A few bytes may hold very much: it is given out piece
 * by piece, as it is asked for.
 * @throws Error with code EBADMSG if it is damaged or ends too early
 */
export async function* decompressZstd(
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<Buffer, void, undefined> {
  const start = addon.createZstdDecompressor();
  let isWhole = true;
  for await (const chunk of source) {
    for (let at = 0, isFull = false; at < chunk.length || isFull;) {
      const result = await step(start, chunk.subarray(at), false);
      at += result.readBytes;
      isFull = result.output.length === outputBytes;
      // After a frame's end a step without input would ask for the next frame's header.
      if (result.readBytes > 0 || result.output.length > 0) isWhole = result.isWhole;
      if (isWhole && at === chunk.length) isFull = false;
      if (result.output.length > 0) yield result.output;
    }
  }
  if (!isWhole) throw Object.assign(new Error('zstd: the stream ends too early'), { code: 'EBADMSG' });
}

async function step(start: StartStep, input: Uint8Array, ends: boolean) {
  const output = Buffer.allocUnsafe(outputBytes);
  const { writtenBytes, ...rest } = await runJob(() => start({ input, output, ends }));
  return { ...rest, output: output.subarray(0, writtenBytes) };
}
