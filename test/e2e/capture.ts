import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packetFlags, readPcapng } from '../../src/pcapng/index.ts';

const startBoundMs = 10_000;

export interface SeenFrame {
  readonly interface: string;
  /** Towards the tap's reader or out of the bridge, as the host counts. */
  readonly outbound: boolean;
  readonly sourceMac: string;
  /** Behind VLAN tags. */
  readonly etherType: number;
  readonly bytes: Uint8Array;
}

/** A sniffer in a network namespace of its own host: from `start` to `stop` it keeps every frame. */
export class Capture {
  readonly #directory: string;
  readonly #child: ChildProcess;

  private constructor(directory: string, child: ChildProcess) {
    this.#directory = directory;
    this.#child = child;
  }

  static async start(namespace: string, interfaces: readonly string[]): Promise<Capture> {
    const directory = mkdtempSync(join(tmpdir(), 'capture-'));
    const program = join(directory, 'capture');
    const source = join(import.meta.dirname, 'capture.c');
    execFileSync('gcc', ['-std=gnu17', '-O2', '-Wall', '-Wextra', '-o', program, source]);
    const enter = [`--net=/run/netns/${namespace}`, program, join(directory, 'frames.pcapng')];
    const child = spawn('nsenter', [...enter, ...interfaces], { stdio: ['ignore', 'pipe', 'inherit'] });
    const capture = new Capture(directory, child);
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('the capture did not start')));
    ended.catch(() => undefined);
    const ready = once(child.stdout, 'data', { signal: AbortSignal.timeout(startBoundMs) });
    await Promise.race([ready, ended]).catch((error: unknown) => {
      capture.discard();
      throw error;
    });
    return capture;
  }

  /** Ends it and gives what it saw. @throws where a frame found no room */
  async stop(): Promise<SeenFrame[]> {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    const [code] = (await ended) as [number | null];
    if (code !== 0) throw new Error('the capture missed frames');
    const { interfaces, packets } = readPcapng(await readFile(join(this.#directory, 'frames.pcapng')));
    return packets.map(({ interfaceIndex, flags, data }) =>
      seen(interfaces[interfaceIndex]!.name, flags === packetFlags.outbound, data),
    );
  }

  /** Whatever is left of it. */
  discard(): void {
    this.#child.kill('SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

const vlanTypes = [0x8100, 0x88a8];

function seen(name: string, outbound: boolean, bytes: Uint8Array): SeenFrame {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 12;
  while (vlanTypes.includes(view.readUInt16BE(at))) at += 4;
  const sourceMac = [...view.subarray(6, 12)].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
  return { interface: name, outbound, sourceMac, etherType: view.readUInt16BE(at), bytes };
}

const pcapHeaderBytes = 24;
const recordHeaderBytes = 16;

/** The frames of a file of QEMU's filter-dump (net/dump.c): pcap of this machine's byte order. */
export async function readPcap(path: string): Promise<SeenFrame[]> {
  const file = await readFile(path);
  if (file.readUInt32LE(0) !== 0xa1b2c3d4) throw new Error(`${path} is no pcap file`);
  const frames: SeenFrame[] = [];
  let at = pcapHeaderBytes;
  while (at + recordHeaderBytes <= file.length) {
    const length = file.readUInt32LE(at + 8);
    at += recordHeaderBytes;
    if (at + length > file.length) break;
    frames.push(seen(path, false, file.subarray(at, at + length)));
    at += length;
  }
  return frames;
}
