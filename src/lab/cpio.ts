/**
 * An archive in the "newc" format, as the kernel unpacks it into the root file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst).
 */
export interface CpioEntry {
  readonly path: string;
  /** Type and permissions, as in st_mode: 0o040755, 0o100644. */
  readonly mode: number;
  readonly data?: Uint8Array;
}

function padding(length: number): Buffer {
  return Buffer.alloc((4 - (length % 4)) % 4);
}

function record(inode: number, { path, mode, data = new Uint8Array() }: CpioEntry): Buffer {
  const name = Buffer.from(`${path}\0`);
  const links = (mode & 0o170000) === 0o040000 ? 2 : 1;
  const fields = [inode, mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length, 0];
  const header = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`);
  return Buffer.concat([header, name, padding(header.length + name.length), data, padding(data.length)]);
}

/** Parents must come before what is in them. */
export function packCpio(entries: readonly CpioEntry[]): Buffer {
  const trailer = record(0, { path: 'TRAILER!!!', mode: 0 });
  return Buffer.concat([...entries.map((entry, index) => record(index + 1, entry)), trailer]);
}
