import { loadAddon } from './addon.ts';

/** A packet socket of another process that is bound to a device. */
export interface PacketSocket {
  /** A duplicate: the same open socket. */
  readonly fd: number;
  readonly inode: number;
  readonly ifindex: number;
}

/** Bytes as the kernel counts them: a small frame weighs some 768. */
export interface ReceiveBuffer {
  readonly bytes: number;
  readonly filledBytes: number;
  /** Frames for which it never had room; modulo 2^32. */
  readonly dropped: number;
}

interface PacketSocketsAddon {
  duplicatePacketSockets(pid: number): PacketSocket[];
  readReceiveBuffer(fd: number): ReceiveBuffer;
  setReceiveBuffer(fd: number, bytes: number): void;
}

const addon = loadAddon() as PacketSocketsAddon;

/**
 * The packet sockets of a process. Needs ptrace permission: throws an error with an errno's `code`, EPERM without it,
 * ESRCH if there is no such process. The caller closes the descriptors.
 */
export function duplicatePacketSockets(pid: number): PacketSocket[] {
  return addon.duplicatePacketSockets(pid);
}

export function readReceiveBuffer(fd: number): ReceiveBuffer {
  return addon.readReceiveBuffer(fd);
}

/** Needs CAP_NET_ADMIN. What waits in the buffer stays, also if it is more. */
export function setReceiveBuffer(fd: number, bytes: number): void {
  addon.setReceiveBuffer(fd, bytes);
}
