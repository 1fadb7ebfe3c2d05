import { closeSync, constants, openSync, readFileSync, readSync } from 'node:fs';
import plainIoctl from 'ioctl-native';
import { loadAddon } from './addon.ts';
import { ErrnoError, isErrno } from './rtnetlink.ts';

const addon = loadAddon() as { isReadable(fd: number): boolean };

/** include/uapi/linux/if_tun.h */
const request = {
  setInterface: 0x400454ca,
  setPersist: 0x400454cb,
  getInterface: 0x800454d2,
  getVnetHeaderSize: 0x800454d7,
  setFilterEbpf: 0x800454e1,
} as const;
const flags = { tap: 0x0002, multiQueue: 0x0100, noPacketInformation: 0x1000, vnetHeader: 0x4000 } as const;

const IFREQ_BYTES = 40;
const IFREQ_FLAGS = 16;
const NAME_BYTES = 16;
/** More than the kernel puts into one frame: 65,535 bytes of IP, Ethernet and virtio-net headers. */
const LARGEST_READ_BYTES = 70_000;
const VNET_GSO_SIZE = 4;
/** Among the counters of /proc/net/dev. */
const SENT_FRAMES = 9;

function ioctl(fd: number, code: number, argument: Buffer, what: string): void {
  try {
    plainIoctl(fd, code, argument);
  } catch (error) {
    const errno = error instanceof Error && 'code' in error ? Number.parseInt(String(error.code), 10) : 0;
    throw new ErrnoError(errno, what, error instanceof Error ? error.message : String(error));
  }
}

export interface TapOptions {
  readonly name: string;
  /** Whether frames carry a virtio-net header on the descriptor, as QEMU asks for by default. */
  readonly vnetHdr?: boolean | undefined;
  /** Whether it may be opened several times, each time with a ring of its own. A device is one or the other. */
  readonly multiQueue?: boolean | undefined;
}

/** Opens a tap, making the device if there is none; returns a non-blocking descriptor. Throws an ErrnoError. */
export function openTap({ name, vnetHdr = false, multiQueue = false }: TapOptions): number {
  if (Buffer.byteLength(name) >= NAME_BYTES)
    throw new RangeError(`the name of a device has up to 15 bytes: ${name}`);
  const fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
  try {
    const argument = Buffer.alloc(IFREQ_BYTES);
    argument.write(name, 0, 'latin1');
    argument.writeUInt16LE(
      flags.tap |
        flags.noPacketInformation |
        (vnetHdr ? flags.vnetHeader : 0) |
        (multiQueue ? flags.multiQueue : 0),
      IFREQ_FLAGS,
    );
    ioctl(fd, request.setInterface, argument, `TUNSETIFF ${name}`);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Makes a tap that stays when nobody has it open, until it is deleted. Throws an ErrnoError. */
export function makePersistentTap(options: TapOptions): void {
  const fd = openTap(options);
  try {
    // The argument is the value itself: whatever is not 0 means yes, and so does the address of a buffer.
    ioctl(fd, request.setPersist, Buffer.alloc(4), `TUNSETPERSIST ${options.name}`);
  } finally {
    closeSync(fd);
  }
}

/** Attaches a socket filter program in the tap itself, behind every queueing discipline; null detaches. */
export function setTapProgram(fd: number, program: number | null): void {
  const argument = Buffer.alloc(4);
  argument.writeInt32LE(program ?? -1);
  ioctl(fd, request.setFilterEbpf, argument, 'TUNSETFILTEREBPF');
}

/** Whether the reader of a tap has taken everything that was put into it. */
export function tapRingIsEmpty(fd: number): boolean {
  return !addon.isReadable(fd);
}

/** Bytes of virtio-net header in front of each frame on this descriptor: 0, 10 or 12. Throws an ErrnoError. */
export function vnetHeaderBytes(fd: number): number {
  const argument = Buffer.alloc(IFREQ_BYTES);
  ioctl(fd, request.getInterface, argument, 'TUNGETIFF');
  if ((argument.readUInt16LE(IFREQ_FLAGS) & flags.vnetHeader) === 0) return 0;
  const size = Buffer.alloc(4);
  ioctl(fd, request.getVnetHeaderSize, size, 'TUNGETVNETHDRSZ');
  return size.readInt32LE(0);
}

/**
 * How many frames each device of this network namespace has sent: of a tap, those that were read from its rings
 * (tun_put_user in drivers/net/tun.c), by whom so ever.
 */
export function readSentFrames(): Map<string, bigint> {
  const [, , ...lines] = readFileSync('/proc/thread-self/net/dev', 'utf8').trimEnd().split('\n');
  return new Map(
    lines.map((line) => {
      const [name = '', counters = ''] = line.split(/:\s*/);
      return [name.trim(), BigInt(counters.trim().split(/\s+/)[SENT_FRAMES] ?? 0)];
    }),
  );
}

export interface TapFrame {
  readonly frame: Buffer;
  /** Bytes a segment if the frame is still to be segmented; 0 otherwise. */
  readonly gsoSize: number;
}

/**
 * Takes frames out of a tap's ring, in order, until it is empty or `maxFrames` are read. Whoever else reads the
 * tap must be stopped. Throws an error with an errno's `code`.
 */
export function readTapFrames(fd: number, maxFrames = 65_536): TapFrame[] {
  const headerBytes = vnetHeaderBytes(fd);
  const buffer = Buffer.allocUnsafe(LARGEST_READ_BYTES);
  const frames: TapFrame[] = [];
  while (frames.length < maxFrames && addon.isReadable(fd)) {
    let length: number;
    try {
      length = readSync(fd, buffer);
    } catch (error) {
      if (isErrno(error, 'EAGAIN')) break;
      throw error;
    }
    const gsoSize = headerBytes === 0 ? 0 : buffer.readUInt16LE(VNET_GSO_SIZE);
    frames.push({ frame: Buffer.from(buffer.subarray(headerBytes, length)), gsoSize });
  }
  return frames;
}
