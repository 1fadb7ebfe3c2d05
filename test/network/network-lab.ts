import { execFileSync } from 'node:child_process';
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { deleteLink, enterNetworkNamespace, readLinks, setLink } from '../../src/native/netlink.ts';
import { openTap, readTapFrames } from '../../src/native/tap.ts';

export interface LabTap {
  readonly name: string;
  readonly fd: number;
  readonly ifindex: number;
}

let made = 0;

/** A network namespace of the test's own, which the test process lives in until it leaves. */
export class NetworkLab {
  readonly namespace: string;
  readonly #home: number;
  readonly #fds: number[] = [];
  readonly #readers: TapReader[] = [];
  readonly #others: string[] = [];

  private constructor() {
    this.namespace = `sg-net-${process.pid}-${made++}`;
    this.#home = openSync('/proc/thread-self/ns/net', 'r');
  }

  static enter(): NetworkLab {
    const lab = new NetworkLab();
    execFileSync('ip', ['netns', 'add', lab.namespace]);
    enterNetworkNamespace(`/run/netns/${lab.namespace}`);
    // Devices must be silent by themselves: no router solicitations, no multicast reports.
    writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
    writeFileSync('/proc/sys/net/ipv6/conf/all/disable_ipv6', '1');
    return lab;
  }

  leave(): void {
    for (const reader of this.#readers) reader.stop();
    for (const fd of this.#fds) closeSync(fd);
    enterNetworkNamespace(`/proc/self/fd/${this.#home}`);
    closeSync(this.#home);
    for (const name of [...this.#others, this.namespace]) execFileSync('ip', ['netns', 'delete', name]);
  }

  tap({ mtu = 1500, vnetHdr = false }: { mtu?: number; vnetHdr?: boolean } = {}): LabTap {
    const name = `tap${made++}`;
    const fd = openTap({ name, vnetHdr });
    this.#fds.push(fd);
    const ifindex = this.ifindex(name);
    setLink({ ifindex, mtu, up: true });
    return { name, fd, ifindex };
  }

  /** Plays the guest on a tap, until it is stopped or the test ends. */
  reader(tap: LabTap): TapReader {
    const reader = new TapReader(tap.fd);
    this.#readers.push(reader);
    return reader;
  }

  /** Two ends of a cable, both up: before the kernel says so, it drops what is sent. */
  async veth(): Promise<[string, string]> {
    const ends: [string, string] = [`va${made}`, `vb${made++}`];
    this.ip('link', 'add', ends[0], 'type', 'veth', 'peer', 'name', ends[1]);
    for (const end of ends) setLink({ ifindex: this.ifindex(end), up: true });
    for (const end of ends) await this.isUp(end);
    return ends;
  }

  /** Makes a second namespace, moves devices into it, and does something in it; returns its name. */
  elsewhere(devices: readonly string[], action: () => void): string {
    const other = `${this.namespace}-b${this.#others.length}`;
    this.ip('netns', 'add', other);
    this.#others.push(other);
    for (const device of devices) this.ip('link', 'set', device, 'netns', other);
    enterNetworkNamespace(`/run/netns/${other}`);
    try {
      action();
    } finally {
      enterNetworkNamespace(`/run/netns/${this.namespace}`);
    }
    return other;
  }

  async isUp(device: string, namespace = this.namespace): Promise<void> {
    await until(
      () => this.ip('-n', namespace, 'link', 'show', device).includes('state UP'),
      `${device} is up`,
    );
  }

  /** Joins devices by a switch, and waits until it forwards. */
  async bridge(...ports: string[]): Promise<void> {
    const name = `br${made++}`;
    this.ip('link', 'add', name, 'type', 'bridge', 'mcast_snooping', '0');
    this.ip('link', 'set', name, 'up');
    for (const port of ports) {
      this.ip('link', 'set', port, 'master', name);
      await this.forwards(port);
    }
  }

  /** A switch forwards to a port as soon as it has carrier: a tap, when somebody has opened it. */
  async forwards(port: string): Promise<void> {
    await until(() => this.ip('-d', 'link', 'show', port).includes('state forwarding'), `${port} forwards`);
  }

  ifindex(name: string): number {
    const found = readLinks().find((link) => link.name === name);
    if (found === undefined) throw new Error(`no device ${name}`);
    return found.ifindex;
  }

  remove(name: string): void {
    deleteLink(name);
  }

  ip(...args: string[]): string {
    return execFileSync('ip', args, { encoding: 'utf8' });
  }

  tc(...args: string[]): string {
    return execFileSync('tc', args, { encoding: 'utf8' });
  }
}

const DESTINATION = Buffer.from('02000000beef', 'hex');
const SOURCE = Buffer.from('02000000cafe', 'hex');
/** IEEE 802 local experimental EtherType 2: no protocol of the kernel touches it. */
const ETHER_TYPE = 0x88b6;
const NUMBER_AT = 14;

/** A frame that carries a number and bytes that depend on it. */
export function numberedFrame(number: number, length = 100): Buffer {
  const frame = Buffer.alloc(length);
  DESTINATION.copy(frame, 0);
  SOURCE.copy(frame, 6);
  frame.writeUInt16BE(ETHER_TYPE, 12);
  frame.writeUInt32BE(number, NUMBER_AT);
  for (let at = NUMBER_AT + 4; at < length; at++) frame[at] = (number * 31 + at * 7) & 0xff;
  return frame;
}

/** Not a frame that the kernel itself made up, such as a bridge's greeting. */
export const isOurs = (frame: Buffer): boolean => frame.subarray(6, 12).equals(SOURCE);

export const numberOf = (frame: Buffer): number => frame.readUInt32BE(NUMBER_AT);

export function numbers(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, place) => from + place);
}

export interface ReadFrame {
  readonly frame: Buffer;
  /** When it was read, on CLOCK_MONOTONIC. */
  readonly atNs: bigint;
}

/** Waits until a condition holds; fails loudly if it never does. */
export async function until(condition: () => boolean, what: string, limitMs = 10_000): Promise<void> {
  const limit = Date.now() + limitMs;
  while (!condition()) {
    if (Date.now() > limit) throw new Error(`waited ${limitMs} ms in vain until ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Reads a tap as long as it lives. */
export class TapReader {
  readonly frames: ReadFrame[] = [];
  readonly #timer: NodeJS.Timeout;

  constructor(fd: number) {
    this.#timer = setInterval(() => {
      for (const { frame } of readTapFrames(fd)) this.frames.push({ frame, atNs: process.hrtime.bigint() });
    }, 1);
  }

  get numbers(): number[] {
    return this.frames.map(({ frame }) => numberOf(frame));
  }

  async have(count: number): Promise<number[]> {
    await until(() => this.frames.length >= count, `${count} frames were read`);
    return this.numbers;
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
