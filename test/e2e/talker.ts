import { execFileSync } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';

import { runInHost, type Lab } from '../../src/lab/index.ts';
import { enterNetworkNamespace } from '../../src/native/netlink.ts';
import { openTap, readTapFrames } from '../../src/native/tap.ts';

const usualMac = '02:00:00:0e:00:01';
const broadcast = Buffer.alloc(6, 0xff);
const etherTypes = { ipv4: 0x0800, arp: 0x0806 } as const;
const icmp = { echoReply: 0, echoRequest: 8 } as const;
const ICMP = 1;
const echoId = 0x5a5a;

export interface TalkerOptions {
  readonly lab: Lab;
  readonly host: string;
  /** The switch in that host, and the name of the port on it. */
  readonly bridge: string;
  readonly port: string;
  /** Whom to ping, and as whom: IPv4 addresses of one subnet. */
  readonly target: string;
  readonly address: string;
  /** Its hardware address, where several stations must be told apart. */
  readonly mac?: string;
}

/**
 * Somebody outside an experiment: a station in a network namespace of its own, joined to a host's switch by a veth
 * pair, which pings a VM. The VM's kernel answers every ping, so the answers tell which reached it, and in which order.
 */
export class Talker {
  /** Sequence numbers as they were answered. */
  readonly answered: number[] = [];
  readonly #options: TalkerOptions;
  readonly #namespace: string;
  readonly #tap: number;
  readonly #mac: Buffer;
  #poll: NodeJS.Timeout | undefined;
  #pinging: NodeJS.Timeout | undefined;
  #targetMac: Buffer | undefined;
  sent = 0;
  /** How often it told its hardware address. */
  arpReplies = 0;

  private constructor(options: TalkerOptions, namespace: string, tap: number) {
    this.#options = options;
    this.#namespace = namespace;
    this.#tap = tap;
    this.#mac = Buffer.from((options.mac ?? usualMac).replaceAll(':', ''), 'hex');
    this.#poll = setInterval(() => this.#receive(), 1);
  }

  static async join(options: TalkerOptions): Promise<Talker> {
    const { lab, host, port } = options;
    const namespace = `sg-${port}-${process.pid}`;
    const hostNamespace = lab.hosts.find(({ name }) => name === host)!.namespace;
    const ip = (...args: string[]) => execFileSync('ip', args);
    ip('netns', 'add', namespace);
    try {
      return await Talker.#wire(options, namespace, hostNamespace, ip);
    } catch (error) {
      ip('netns', 'delete', namespace);
      throw error;
    }
  }

  static async #wire(
    options: TalkerOptions,
    namespace: string,
    hostNamespace: string,
    ip: (...args: string[]) => unknown,
  ): Promise<Talker> {
    const { lab, host, bridge, port } = options;
    ip('-n', namespace, 'link', 'add', 'out', 'type', 'veth', 'peer', 'name', port, 'netns', hostNamespace);
    const tap = within(namespace, () => openTap({ name: 'station' }));
    ip('-n', namespace, 'link', 'add', 'hub', 'type', 'bridge', 'mcast_snooping', '0');
    // Only the station speaks: no router is looked for, no multicast group joined.
    for (const device of ['station', 'out', 'hub'])
      ip('-n', namespace, 'link', 'set', device, 'addrgenmode', 'none');
    for (const device of ['station', 'out']) ip('-n', namespace, 'link', 'set', device, 'master', 'hub');
    for (const device of ['station', 'out', 'hub']) ip('-n', namespace, 'link', 'set', device, 'up');
    ip('-n', hostNamespace, 'link', 'set', port, 'up');
    await runInHost({ lab: lab.name, host }, ['ovs-vsctl', 'add-port', bridge, port]);
    return new Talker(options, namespace, tap);
  }

  /** Waits until the target has answered: who has, is reachable and knows us. */
  async meet(): Promise<void> {
    const timer = setInterval(() => {
      if (this.#targetMac === undefined) this.#sendArp(1, broadcast, Buffer.alloc(6));
      else this.#sendPing(0, 0);
    }, 50);
    try {
      await until(() => this.answered.length > 0, `${this.#options.target} answers`);
    } finally {
      clearInterval(timer);
    }
    this.answered.length = 0;
  }

  /** Pings with numbers that count up from 1. */
  start({ everyMs, bytes = 64 }: { everyMs: number; bytes?: number }): void {
    this.#pinging = setInterval(() => this.#sendPing(++this.sent, bytes), everyMs);
  }

  /** Stops pinging, and waits until all pings are answered; if some may be lost, until the last one is. */
  async stop({ someLost = false } = {}): Promise<number[]> {
    clearInterval(this.#pinging);
    const { sent } = this;
    this.sent = 0;
    await until(
      () => (someLost ? this.answered.includes(sent) : this.answered.length >= sent),
      `${someLost ? 'the last' : 'every one'} of ${sent} pings is answered`,
      () => `missing are ${this.#missing(sent).join(' ')}`,
    ).catch((error: unknown) => {
      this.answered.length = 0;
      throw error;
    });
    return this.answered.splice(0);
  }

  #missing(sent: number): number[] {
    const answered = new Set(this.answered);
    return Array.from({ length: sent }, (_, index) => index + 1).filter((number) => !answered.has(number));
  }

  async leave(): Promise<void> {
    clearInterval(this.#pinging);
    clearInterval(this.#poll);
    closeSync(this.#tap);
    const { lab, host, bridge, port } = this.#options;
    await runInHost({ lab: lab.name, host }, ['ovs-vsctl', '--if-exists', 'del-port', bridge, port]);
    execFileSync('ip', ['netns', 'delete', this.#namespace]);
  }

  #sendPing(sequence: number, bytes: number): void {
    if (this.#targetMac === undefined) return;
    const message = Buffer.alloc(8 + bytes, sequence & 0xff);
    message.writeUInt16BE(icmp.echoRequest << 8, 0);
    message.writeUInt16BE(0, 2);
    message.writeUInt16BE(echoId, 4);
    message.writeUInt16BE(sequence, 6);
    message.writeUInt16BE(checksum(message), 2);
    const header = Buffer.alloc(20);
    header[0] = 0x45;
    header.writeUInt16BE(20 + message.length, 2);
    header[8] = 64;
    header[9] = ICMP;
    packed(this.#options.address).copy(header, 12);
    packed(this.#options.target).copy(header, 16);
    header.writeUInt16BE(checksum(header), 10);
    this.#send(this.#targetMac, etherTypes.ipv4, Buffer.concat([header, message]));
  }

  /** RFC 826. */
  #sendArp(operation: 1 | 2, to: Buffer, toHardware: Buffer): void {
    const { address, target } = this.#options;
    const head = Buffer.from([0, 1, 8, 0, 6, 4, 0, operation]);
    const body = Buffer.concat([
      head,
      this.#mac,
      packed(address),
      toHardware,
      packed(target),
      Buffer.alloc(18),
    ]);
    this.#send(to, etherTypes.arp, body);
  }

  #send(to: Buffer, etherType: number, payload: Buffer): void {
    const type = Buffer.alloc(2);
    type.writeUInt16BE(etherType);
    writeSync(this.#tap, Buffer.concat([to, this.#mac, type, payload]));
  }

  #receive(): void {
    for (const { frame } of readTapFrames(this.#tap)) {
      const etherType = frame.readUInt16BE(12);
      if (etherType === etherTypes.arp) this.#receiveArp(frame.subarray(14));
      if (etherType === etherTypes.ipv4) this.#receiveIp(frame.subarray(14));
    }
  }

  #receiveArp(body: Buffer): void {
    if (!body.subarray(14, 18).equals(packed(this.#options.target))) return;
    if (!body.subarray(24, 28).equals(packed(this.#options.address))) return;
    this.#targetMac = Buffer.from(body.subarray(8, 14));
    if (body.readUInt16BE(6) !== 1) return;
    this.arpReplies++;
    this.#sendArp(2, this.#targetMac, this.#targetMac);
  }

  #receiveIp(packet: Buffer): void {
    const isAnswer =
      packet[9] === ICMP && packet[20] === icmp.echoReply && packet.readUInt16BE(24) === echoId;
    if (isAnswer && packet.subarray(16, 20).equals(packed(this.#options.address))) {
      this.answered.push(packet.readUInt16BE(26));
    }
  }
}

const packed = (address: string): Buffer => Buffer.from(address.split('.').map(Number));

/** RFC 1071. */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2)
    sum += at + 1 < bytes.length ? bytes.readUInt16BE(at) : bytes[at]! << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** Does something with this thread in another network namespace: what it opens there stays there. */
function within<T>(namespace: string, work: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  try {
    enterNetworkNamespace(`/run/netns/${namespace}`);
    return work();
  } finally {
    enterNetworkNamespace(`/proc/self/fd/${home}`);
    closeSync(home);
  }
}

/** Waits until a condition holds; fails loudly if it never does. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  found: () => string = () => 'not so',
  limitMs = 20_000,
): Promise<void> {
  const limit = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > limit) throw new Error(`waited ${limitMs} ms in vain until ${what}: ${found()}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
