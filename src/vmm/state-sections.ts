/** A device's section in a migration stream. */
export interface StateSection {
  /** Where its data begin. */
  readonly offset: number;
  readonly version: number;
}

const fullSection = 0x04; // QEMU_VM_SECTION_FULL
const footer = 0x7e; // QEMU_VM_SECTION_FOOTER
const subsection = 0x05; // QEMU_VM_SUBSECTION

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

function sectionAt(
  stream: Buffer,
  labelAt: number,
  labelBytes: number,
  dataBytes: number,
): StateSection | null {
  const head = labelAt - 5;
  // Instance and version, 4 bytes each, stand between the name and the data.
  const offset = labelAt + labelBytes + 8;
  const end = offset + dataBytes;
  if (head < 0 || end + 5 > stream.length || stream[head] !== fullSection) return null;
  const id = stream.readUInt32BE(head + 1);
  const ends = stream[end] === footer && stream.readUInt32BE(end + 1) === id;
  if (!ends && stream[end] !== subsection) return null;
  return { offset, version: stream.readUInt32BE(offset - 4) };
}
