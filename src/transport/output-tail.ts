import type { Readable } from 'node:stream';

/** Reads a stream to its end and keeps the last bytes of it, to quote them. */
export class OutputTail {
  readonly ended: Promise<void>;
  readonly #limitBytes: number;
  #kept = Buffer.alloc(0);

  constructor(stream: Readable, limitBytes: number) {
    this.#limitBytes = limitBytes;
    this.ended = new Promise((resolve) =>
      stream.on('end', resolve).on('close', resolve).on('error', resolve),
    );
    stream.on('data', (chunk: Buffer) => {
      this.#kept = Buffer.concat([this.#kept, chunk]).subarray(-this.#limitBytes);
    });
  }

  /** What is kept, as text, without the white space around it. */
  get text(): string {
    return this.#kept.toString('utf8').trim();
  }
}
