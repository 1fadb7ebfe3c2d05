import { cString, decodeAttributes, flag, textOf, u32 } from './netlink-codec.ts';
import type { Message } from './netlink-codec.ts';
import { change, dump, isErrno } from './rtnetlink.ts';

const type = {
  ...{ newQdisc: 36, deleteQdisc: 37, getQdisc: 38, newClass: 40, getClass: 42 },
  ...{ newFilter: 44, deleteFilter: 45, getFilter: 46 },
} as const;
/** NLM_F_REPLACE of a request that makes something (include/uapi/linux/netlink.h). */
const REPLACE = 0x100;
const attribute = { kind: 1, options: 2 } as const;
const bpf = { fd: 6, name: 7, flags: 8, direct: 1 } as const;

const CLSACT_PARENT = 0xfffffff1;
const CLSACT_HANDLE = 0xffff0000;
const EGRESS_PARENT = 0xfffffff3;
/** Ours: first in line, and with a handle that nobody else picks by chance. */
const PRIORITY = 1;
const HANDLE = 0x57a6;
const ALL_PROTOCOLS_BIG_ENDIAN = 0x0300;

interface TrafficControlHeader {
  readonly ifindex: number;
  readonly handle: number;
  readonly parent: number;
  readonly info?: number;
}

/** struct tcmsg (include/uapi/linux/rtnetlink.h). */
function header({ ifindex, handle, parent, info = 0 }: TrafficControlHeader): Buffer {
  const body = Buffer.alloc(20);
  body.writeInt32LE(ifindex, 4);
  body.writeUInt32LE(handle, 8);
  body.writeUInt32LE(parent, 12);
  body.writeUInt32LE(info, 16);
  return body;
}

const clsact = (ifindex: number) => ({
  body: header({ ifindex, handle: CLSACT_HANDLE, parent: CLSACT_PARENT }),
  attributes: [{ type: attribute.kind, value: cString('clsact') }],
});

const ourFilter = (ifindex: number) =>
  header({
    ifindex,
    handle: HANDLE,
    parent: EGRESS_PARENT,
    info: PRIORITY * 0x10000 + ALL_PROTOCOLS_BIG_ENDIAN,
  });

/** Gives a device a clsact qdisc; false if it had one. Throws an ErrnoError. */
export function addClsact(ifindex: number): boolean {
  try {
    change(
      { type: type.newQdisc, flags: flag.create | flag.exclusive, ...clsact(ifindex) },
      `clsact on device ${ifindex}`,
    );
    return true;
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false;
    throw error;
  }
}

export function removeClsact(ifindex: number): void {
  change({ type: type.deleteQdisc, flags: 0, ...clsact(ifindex) }, `removing clsact from device ${ifindex}`);
}

/** Attaches a program at clsact egress, in direct-action mode (tc-bpf(8)). Throws an ErrnoError. */
export function addEgressProgram(ifindex: number, program: number): void {
  const options = [
    { type: bpf.fd, value: u32(program) },
    { type: bpf.name, value: cString('staghorn_gate') },
    { type: bpf.flags, value: u32(bpf.direct) },
  ];
  const attributes = [
    { type: attribute.kind, value: cString('bpf') },
    { type: attribute.options, value: options },
  ];
  const flags = flag.create | flag.exclusive;
  change(
    { type: type.newFilter, flags, body: ourFilter(ifindex), attributes },
    `egress filter on device ${ifindex}`,
  );
}

export function removeEgressProgram(ifindex: number): void {
  const attributes = [{ type: attribute.kind, value: cString('bpf') }];
  const what = `removing the egress filter from device ${ifindex}`;
  change({ type: type.deleteFilter, flags: 0, body: ourFilter(ifindex), attributes }, what);
}

/** A queueing discipline or a class of one, with its settings as the kernel tells them. */
export interface TrafficControl {
  readonly kind: string;
  readonly handle: number;
  readonly parent: number;
  /** The bytes of TCA_OPTIONS; empty if it has none. */
  readonly options: Buffer;
}

function decodeTrafficControl({ body }: Message): TrafficControl {
  const attributes = decodeAttributes(body.subarray(20));
  return {
    kind: textOf(attributes.get(attribute.kind)),
    handle: body.readUInt32LE(8),
    parent: body.readUInt32LE(12),
    options: Buffer.from(attributes.get(attribute.options) ?? []),
  };
}

function read(message: number, ifindex: number, parent: number, what: string): TrafficControl[] {
  const body = header({ ifindex, handle: 0, parent });
  const found = dump({ type: message, body }, `${what} of device ${ifindex}`);
  return found.filter((entry) => entry.body.readInt32LE(4) === ifindex).map(decodeTrafficControl);
}

/** The queueing disciplines of a device. Throws an ErrnoError. */
export const readQdiscSettings = (ifindex: number): TrafficControl[] =>
  read(type.getQdisc, ifindex, 0, 'RTM_GETQDISC');

/** All classes of a device's queueing disciplines. Throws an ErrnoError. */
export const readClassSettings = (ifindex: number): TrafficControl[] =>
  read(type.getClass, ifindex, 0, 'RTM_GETTCLASS');

/** The filters that hang on a queueing discipline or class. Throws an ErrnoError. */
export const readFilters = (ifindex: number, parent: number): TrafficControl[] =>
  read(type.getFilter, ifindex, parent, 'RTM_GETTFILTER');

/** Makes a queueing discipline, in place of what is there. Throws an ErrnoError. */
export function makeQdisc(ifindex: number, settings: TrafficControl): void {
  make(type.newQdisc, ifindex, settings, 'qdisc');
}

/** Makes a class of a queueing discipline. Throws an ErrnoError. */
export function makeClass(ifindex: number, settings: TrafficControl): void {
  make(type.newClass, ifindex, settings, 'class');
}

function make(message: number, ifindex: number, settings: TrafficControl, what: string): void {
  const { kind, handle, parent, options } = settings;
  const attributes = [
    { type: attribute.kind, value: cString(kind) },
    ...(options.length === 0 ? [] : [{ type: attribute.options, value: options }]),
  ];
  const body = header({ ifindex, handle, parent });
  const id = `${(handle >>> 16).toString(16)}:${(handle & 0xffff).toString(16)}`;
  change(
    { type: message, flags: flag.create | REPLACE, body, attributes },
    `${what} ${kind} ${id} on device ${ifindex}`,
  );
}
