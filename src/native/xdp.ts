import { closeSync } from 'node:fs';

import { loadAddon } from './addon.ts';
import { readBpfPrograms } from './bpf-objects.ts';
import type { GateIdentity } from './gate.ts';
import { decodeAttributes, u32 } from './netlink-codec.ts';
import { change, dump } from './rtnetlink.ts';

interface EdgeAddon {
  readonly admittedBytesMax: number;
  loadEdgeProgram(stateMapId: number, ringMapId: number, slot: number, drop: boolean): number;
  probeEdge(stateMapId: number, ifindex: number, frame: Buffer): void;
}

const addon = loadAddon() as EdgeAddon;

/** Ethernet header and two VLAN tags. */
const linkHeaderBytes = 14 + 2 * 4;
/** The largest MTU whose frames can be let in again (BPF_F_TEST_XDP_LIVE_FRAMES takes less than a page). */
export const heldMtuMax = addon.admittedBytesMax - linkHeaderBytes;

const type = { newLink: 16, getLink: 18 } as const;
/** include/uapi/linux/if_link.h */
const IFLA_XDP = 43;
const xdp = { fd: 1, flags: 3, programId: 4, skbProgramId: 6 } as const;
const flags = { updateIfNoneExists: 1, skbMode: 2 } as const;
const NO_PROGRAM = 0xffffffff;

function linkHeader(ifindex: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeInt32LE(ifindex, 4);
  return header;
}

function setProgram(ifindex: number, fd: number, mode: number): void {
  const value = [
    { type: xdp.fd, value: u32(fd) },
    { type: xdp.flags, value: u32(mode) },
  ];
  const attributes = [{ type: IFLA_XDP, value }];
  change({ type: type.newLink, flags: 0, body: linkHeader(ifindex), attributes }, `XDP on device ${ifindex}`);
}

/** The kernel's ids of the XDP programs of all devices, in whichever mode they are, by ifindex. */
export function readXdpPrograms(): Map<number, number> {
  const found = new Map<number, number>();
  for (const { type: kind, body } of dump({ type: type.getLink, body: linkHeader(0) }, 'RTM_GETLINK')) {
    if (kind !== type.newLink) continue;
    const attached = decodeAttributes(decodeAttributes(body.subarray(16)).get(IFLA_XDP));
    const id = (attached.get(xdp.skbProgramId) ?? attached.get(xdp.programId))?.readUInt32LE(0) ?? 0;
    if (id !== 0) found.set(body.readInt32LE(4), id);
  }
  return found;
}

export interface EdgeProgramOptions {
  readonly gate: GateIdentity;
  readonly slot: number;
  readonly ifindex: number;
  readonly drop: boolean;
}

/** Attaches the program of the edge as generic XDP. Throws an ErrnoError: EBUSY or EEXIST if one is there already. */
export function attachEdgeProgram({ gate, slot, ifindex, drop }: EdgeProgramOptions): void {
  const program = addon.loadEdgeProgram(gate.stateMapId, gate.ringMapId, slot, drop);
  try {
    setProgram(ifindex, program, flags.skbMode | flags.updateIfNoneExists);
  } finally {
    closeSync(program);
  }
}

/** Takes off the program of that gate; does nothing where it is not, or not any more. */
export function detachEdgeProgram(ifindex: number, gate: GateIdentity): void {
  const id = readXdpPrograms().get(ifindex);
  if (id === undefined) return;
  const program = readBpfPrograms().find((candidate) => candidate.id === id);
  if (program?.mapIds.includes(gate.stateMapId) === true) setProgram(ifindex, NO_PROGRAM, flags.skbMode);
}

/**
 * Tries, with a frame that the edge's program drops, whether frames can be let in again on a device. Throws an
 * ErrnoError: EINVAL where the kernel cannot (before Linux 5.18), ESTALE if the frame took another way.
 */
export function probeEdge(gate: GateIdentity, ifindex: number, mac: string): void {
  // To an address that no bridge forwards (IEEE 802.1Q, table 8-1), should it get past the program after all.
  const addresses = Buffer.from(`0180c200000e${mac.replaceAll(':', '')}`, 'hex');
  addon.probeEdge(
    gate.stateMapId,
    ifindex,
    Buffer.concat([addresses, Buffer.from('88b6', 'hex'), Buffer.alloc(46)]),
  );
}
