import { cString, decodeAttributes, textOf, u32 } from './netlink-codec.ts';
import type { Attribute, Message } from './netlink-codec.ts';
import { change, dump } from './rtnetlink.ts';

export { enterNetworkNamespace } from './rtnetlink.ts';

/** A network device (rtnetlink(7), include/uapi/linux/if_link.h). */
export interface Link {
  readonly ifindex: number;
  readonly name: string;
  /** "tun", "veth", "bridge", …; empty for a device without one, such as lo. */
  readonly kind: string;
  readonly up: boolean;
  readonly carrier: boolean;
  readonly mtu: number;
  readonly txQueueLen: number;
  readonly gsoMaxSize: number;
  readonly mac: string;
  /** The device that it stands on, such as a VLAN's; null if there is none here. */
  readonly below: number | null;
  /** The bridge or bond that it is a port of. */
  readonly master: number | null;
}

export interface LinkChange {
  readonly ifindex: number;
  /**
   * Beware: this deactivates the device's queueing disciplines for a moment, and the kernel empties them then
   * (dev_qdisc_change_tx_queue_len in net/sched/sch_generic.c): frames that a netem or tbf holds are lost.
   */
  readonly txQueueLen?: number | undefined;
  readonly mtu?: number | undefined;
  readonly up?: boolean | undefined;
  readonly gsoMaxSize?: number | undefined;
}

/** A queueing discipline and what waits in it (include/uapi/linux/gen_stats.h). */
export interface Qdisc {
  readonly ifindex: number;
  readonly kind: string;
  readonly handle: number;
  readonly parent: number;
  /** It hangs on a class of another one, which counts this one's backlog in its own. */
  readonly nested: boolean;
  readonly backlogBytes: number;
  readonly backlogPackets: number;
  readonly requeues: number;
  readonly drops: number;
}

const type = { newLink: 16, deleteLink: 17, getLink: 18, getQdisc: 38 } as const;
const link = {
  ...{ address: 1, name: 3, mtu: 4, below: 5, master: 10, txQueueLen: 13, info: 18 },
  ...{ carrier: 33, belowNamespace: 37, gsoMaxSize: 41 },
} as const;
const LINK_KIND = 1;
const qdisc = { kind: 1, stats2: 7 } as const;
const STATS_QUEUE = 3;
const IFF_UP = 1;
const ROOT = 0xffffffff;
const CLSACT = 0xfffffff1;

const uint = (value: Buffer | undefined, absent = 0) =>
  value !== undefined && value.length >= 4 ? value.readUInt32LE(0) : absent;

function linkHeader(ifindex: number, flags = 0, changed = 0): Buffer {
  const header = Buffer.alloc(16);
  header.writeInt32LE(ifindex, 4);
  header.writeUInt32LE(flags, 8);
  header.writeUInt32LE(changed, 12);
  return header;
}

function decodeLink({ body }: Message): Link {
  const attributes = decodeAttributes(body.subarray(16));
  return {
    ifindex: body.readInt32LE(4),
    name: textOf(attributes.get(link.name)),
    kind: textOf(decodeAttributes(attributes.get(link.info)).get(LINK_KIND)),
    up: (body.readUInt32LE(8) & IFF_UP) !== 0,
    carrier: attributes.get(link.carrier)?.[0] === 1,
    mtu: uint(attributes.get(link.mtu)),
    txQueueLen: uint(attributes.get(link.txQueueLen)),
    gsoMaxSize: uint(attributes.get(link.gsoMaxSize)),
    mac: [...(attributes.get(link.address) ?? [])]
      .map((byte) => byte.toString(16).padStart(2, '0'))
      .join(':'),
    // In another namespace the number is another device's.
    below: attributes.has(link.belowNamespace) ? null : uint(attributes.get(link.below)) || null,
    master: uint(attributes.get(link.master)) || null,
  };
}

/** All devices of the calling process's network namespace. */
export function readLinks(): Link[] {
  const messages = dump({ type: type.getLink, body: linkHeader(0) }, 'RTM_GETLINK');
  return messages.filter((message) => message.type === type.newLink).map(decodeLink);
}

/** Changes what is given of a device. Throws an ErrnoError. */
export function setLink({ ifindex, txQueueLen, mtu, up, gsoMaxSize }: LinkChange): void {
  const attributes: Attribute[] = [];
  if (mtu !== undefined) attributes.push({ type: link.mtu, value: u32(mtu) });
  if (txQueueLen !== undefined) attributes.push({ type: link.txQueueLen, value: u32(txQueueLen) });
  if (gsoMaxSize !== undefined) attributes.push({ type: link.gsoMaxSize, value: u32(gsoMaxSize) });
  const body = linkHeader(ifindex, up === true ? IFF_UP : 0, up === undefined ? 0 : IFF_UP);
  change({ type: type.newLink, flags: 0, body, attributes }, `RTM_NEWLINK of device ${ifindex}`);
}

/** Removes a device, by name. Throws an ErrnoError (ENODEV if there is none). */
export function deleteLink(name: string): void {
  const attributes = [{ type: link.name, value: cString(name) }];
  change({ type: type.deleteLink, flags: 0, body: linkHeader(0), attributes }, `RTM_DELLINK of ${name}`);
}

function decodeQdisc({ body }: Message): Qdisc {
  const attributes = decodeAttributes(body.subarray(20));
  const queue = decodeAttributes(attributes.get(qdisc.stats2)).get(STATS_QUEUE);
  const counter = (place: number) => uint(queue?.subarray(4 * place));
  const parent = body.readUInt32LE(12);
  return {
    ifindex: body.readInt32LE(4),
    kind: textOf(attributes.get(qdisc.kind)),
    handle: body.readUInt32LE(8),
    parent,
    nested: parent !== ROOT && parent !== CLSACT,
    backlogPackets: counter(0),
    backlogBytes: counter(1),
    drops: counter(2),
    requeues: counter(3),
  };
}

/** The queueing disciplines of one device, or of all. */
export function readQdiscs(ifindex?: number): Qdisc[] {
  const body = Buffer.alloc(20);
  if (ifindex !== undefined) body.writeInt32LE(ifindex, 4);
  const all = dump({ type: type.getQdisc, body }, 'RTM_GETQDISC').map(decodeQdisc);
  return ifindex === undefined ? all : all.filter((entry) => entry.ifindex === ifindex);
}
