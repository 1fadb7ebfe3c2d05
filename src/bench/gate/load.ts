import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { buffer, text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

import { run } from '../../lab/command.ts';
import type { Arrival } from './arrivals.ts';

/** src/bench/gate and dist/bench/gate are equally deep. */
const source = fileURLToPath(new URL('../../../src/bench/gate/load.c', import.meta.url));
const recordBytes = 24;

export interface Sending {
  readonly devices: readonly string[];
  readonly frames: number;
  /** All devices together; 0: as fast as they go. */
  readonly packetsPerSecond: number;
  readonly minBytes: number;
  readonly maxBytes: number;
}

export interface TapReading {
  /** Ends when everything that is in the taps has been read. */
  end(): Promise<Arrival[]>;
}

/** The program that makes the frames and takes the times (load.c), compiled for the time of a benchmark. */
export class Load {
  readonly #directory: string;
  readonly #program: string;
  readonly #readers = new Set<ChildProcess>();

  private constructor(directory: string) {
    this.#directory = directory;
    this.#program = join(directory, 'load');
  }

  static async compile(signal: AbortSignal): Promise<Load> {
    const load = new Load(mkdtempSync(join(tmpdir(), 'staghorn-gate-bench-')));
    try {
      const flags = ['-O2', '-std=gnu17', '-D_GNU_SOURCE', '-Wall', '-Wextra', '-Werror'];
      await run(['gcc', ...flags, '-o', load.#program, source], { signal });
      return load;
    } catch (error) {
      load.close();
      throw error;
    }
  }

  /** Moves frames from one tap to another by way of what joins them; returns the processor's nanoseconds. */
  async pump(between: readonly [number, number], frames: number, bytes: number): Promise<number> {
    return Number(await this.#run(['pump', `${frames}`, `${bytes}`], between));
  }

  /** Sends, and throws if a device refused a frame. */
  async send({ devices, frames, packetsPerSecond, minBytes, maxBytes }: Sending): Promise<void> {
    const settings = [frames, packetsPerSecond, minBytes, maxBytes].map(String);
    const refused = Number(await this.#run(['send', ...settings, ...devices], []));
    if (refused !== 0) throw new Error(`${refused} of ${frames} frames were refused by their devices`);
  }

  /** Reads taps in a real-time process of its own, from the time this resolves. */
  async read(taps: readonly number[]): Promise<TapReading> {
    const child = this.#spawn(['read', `${taps.length}`], taps);
    this.#readers.add(child);
    const ended = once(child, 'exit');
    await once(child.stdout, 'readable');
    const greeting = child.stdout.read('ready\n'.length) as Buffer | null;
    if (greeting?.toString() !== 'ready\n') throw new Error('the reader of the taps did not start');
    return {
      end: async () => {
        child.stdin.end();
        const records = await buffer(child.stdout);
        await ended;
        this.#readers.delete(child);
        return decodeArrivals(records);
      },
    };
  }

  close(): void {
    for (const reader of this.#readers) reader.kill('SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #run(args: readonly string[], fds: readonly number[]): Promise<string> {
    const child = this.#spawn(args, fds);
    child.stdin.end();
    const [printed] = await Promise.all([text(child.stdout), once(child, 'exit')]);
    if (child.exitCode !== 0) throw new Error(`load ${args.join(' ')} failed (${child.exitCode})`);
    return printed;
  }

  #spawn(args: readonly string[], fds: readonly number[]) {
    const child = spawn(this.#program, args, { stdio: ['pipe', 'pipe', 'inherit', ...fds] });
    if (child.stdin === null || child.stdout === null) throw new Error('a child without pipes');
    return Object.assign(child, { stdin: child.stdin, stdout: child.stdout });
  }
}

function decodeArrivals(records: Buffer): Arrival[] {
  return Array.from({ length: records.length / recordBytes }, (_, place) => {
    const at = place * recordBytes;
    return {
      atNs: records.readBigUInt64LE(at),
      tap: records.readUInt32LE(at + 8),
      number: records.readUInt32LE(at + 12),
      intact: records.readUInt32LE(at + 20) === 1,
    };
  });
}
