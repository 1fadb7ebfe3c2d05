import { cString, flag, u32 } from './netlink-codec.ts';
import { change, isErrno } from './rtnetlink.ts';

const type = { newQdisc: 36, deleteQdisc: 37, newFilter: 44, deleteFilter: 45 } as const;
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
