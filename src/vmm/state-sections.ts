/** A device's section in a migration stream. */
export interface StateSection {
  /** Where its data begin. */
  readonly offset: number;
  readonly version: number;
}

const fullSection = 0x04; // QEMU_VM_SECTION_FULL
const footer = 0x7e; // QEMU_VM_SECTION_FOOTER
const subsection = 0x05; // QEMU_VM_SUBSECTION
/** Of a section's head before its name, and of its footer: what it is, and its number. */
const headBytes = 5;
const nameBytesMax = 255;

/**
 * Finds the section of a device whose data have a known length. A stream cannot be walked from outside, since no
 * section says how long it is; so the section's head is looked for, and what must stand behind its data is checked
 * (QEMU migration/savevm.c, save_section_header and save_section_footer).
 * @returns null if the stream has no such section, or if it cannot be told which of several it is
 */
export function findSection(stream: Buffer, name: string, dataBytes: number): StateSection | null {
  const label = Buffer.concat([Buffer.from([name.length]), Buffer.from(name, 'ascii')]);
  const found: StateSection[] = [];
  for (let at = stream.indexOf(label); at >= 0; at = stream.indexOf(label, at + 1)) {
    const section = sectionAt(stream, at, label.length, dataBytes);
    if (section !== null) found.push(section);
  }
  return found.length === 1 ? found[0]! : null;
}

/** The data of sections, from behind the name of each to its footer, whose name ends in this. */
export function findSectionsBySuffix(stream: Buffer, suffix: string): { from: number; to: number }[] {
  const name = Buffer.from(suffix, 'ascii');
  const found: { from: number; to: number }[] = [];
  for (let at = stream.indexOf(name); at >= 0; at = stream.indexOf(name, at + 1)) {
    const section = sectionAround(stream, at + name.length, name.length);
    if (section !== null) found.push(section);
  }
  return found;
}

/** The section whose name, not shorter than this, ends here. */
function sectionAround(stream: Buffer, from: number, bytesMin: number): { from: number; to: number } | null {
  for (let bytes = bytesMin; bytes <= nameBytesMax && from - bytes >= headBytes + 1; bytes++) {
    const labelAt = from - bytes - 1;
    if (stream[labelAt] !== bytes) continue;
    const id = sectionIdAt(stream, labelAt);
    const to = id === null ? -1 : stream.indexOf(Buffer.concat([Buffer.from([footer]), id]), from);
    if (to >= 0) return { from, to };
  }
  return null;
}

function sectionAt(
  stream: Buffer,
  labelAt: number,
  labelBytes: number,
  dataBytes: number,
): StateSection | null {
  const id = sectionIdAt(stream, labelAt);
  // Instance and version, 4 bytes each, stand between the name and the data.
  const offset = labelAt + labelBytes + 8;
  const end = offset + dataBytes;
  if (id === null || end + headBytes > stream.length) return null;
  const ends = stream[end] === footer && id.equals(stream.subarray(end + 1, end + headBytes));
  if (!ends && stream[end] !== subsection) return null;
  return { offset, version: stream.readUInt32BE(offset - 4) };
}

/** The number of the section whose name's length stands here, as its footer repeats it; null if none begins before. */
function sectionIdAt(stream: Buffer, labelAt: number): Buffer | null {
  const head = labelAt - headBytes;
  return head >= 0 && stream[head] === fullSection ? stream.subarray(head + 1, labelAt) : null;
}
