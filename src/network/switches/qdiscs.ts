import { messageOf } from '../../errors/index.ts';
import {
  makeClass,
  makeQdisc,
  readClassSettings,
  readFilters,
  readQdiscSettings,
} from '../../native/traffic-control.ts';
import type { TrafficControl } from '../../native/traffic-control.ts';
import type { StoredQdiscs } from '../../store/stored-switches.ts';
import { inMakingOrder } from './qdisc-order.ts';

/** The parents of clsact and ingress: they queue nothing (include/uapi/linux/pkt_sched.h). */
const INGRESS_PARENT = 0xfffffff1;

/** The queueing disciplines that somebody has set on a device, as tc(8) would: the kernel's own have no handle. */
export function readOwnQdiscs(tap: string, ifindex: number): StoredQdiscs {
  const qdiscs = readQdiscSettings(ifindex).filter(
    ({ handle, parent }) => handle !== 0 && parent !== INGRESS_PARENT,
  );
  // Classes without settings come with their qdisc, as the one of tbf does.
  const classes = qdiscs.length === 0 ? [] : readClassSettings(ifindex);
  return {
    tap,
    qdiscs: qdiscs.map(stored),
    classes: classes.filter(({ options }) => options.length > 0).map(stored),
  };
}

/** What hangs on a device's queueing disciplines and cannot be made again, in words. */
export function qdiscWarnings(tap: string, ifindex: number): string[] {
  const all = readQdiscSettings(ifindex);
  const parents = [
    ...all.filter(({ parent, handle }) => parent !== INGRESS_PARENT && handle !== 0),
    ...readClassSettings(ifindex),
  ];
  const filtered = parents.some(({ handle }) => readFilters(ifindex, handle).length > 0);
  const ingress = all.filter(({ parent }) => parent === INGRESS_PARENT).map(({ kind }) => kind);
  return [
    ...(filtered ? [`the traffic control filters of tap ${tap} are not kept`] : []),
    ...ingress.map((kind) => `the ${kind} qdisc of tap ${tap} is not kept, nor are its filters`),
  ];
}

/** Makes them again, in place of what the device has. @returns what could not be made, in words */
export function makeQdiscs({ tap, qdiscs, classes }: StoredQdiscs, ifindex: number): string[] {
  for (const { what, item } of inMakingOrder(qdiscs, classes)) {
    try {
      const settings = { ...item, options: settable(item.kind, Buffer.from(item.options, 'base64')) };
      if (what === 'qdisc') makeQdisc(ifindex, settings);
      else makeClass(ifindex, settings);
    } catch (error) {
      return [`the queueing disciplines of tap ${tap} could not be made again: ${messageOf(error)}`];
    }
  }
  return [];
}

function stored({ kind, handle, parent, options }: TrafficControl) {
  return { kind, handle, parent, options: settable(kind, options).toString('base64') };
}

const HTB_INIT = 2;
const ATTRIBUTE_HEADER_BYTES = 4;

/**
 * The options as the kernel takes them: what it tells is the same, but for htb, which tells its whole version and
 * wants the upper half alone (htb_dump and htb_init in net/sched/sch_htb.c).
 */
function settable(kind: string, options: Buffer): Buffer {
  const isInit = options.length >= 8 && (options.readUInt16LE(2) & 0x3fff) === HTB_INIT;
  if (kind !== 'htb' || !isInit) return options;
  const changed = Buffer.from(options);
  const version = changed.readUInt32LE(ATTRIBUTE_HEADER_BYTES);
  if (version > 0xffff) changed.writeUInt32LE(version >>> 16, ATTRIBUTE_HEADER_BYTES);
  // How many frames went past the classes is a counter, and no setting.
  changed.writeUInt32LE(0, ATTRIBUTE_HEADER_BYTES + 16);
  return changed;
}
