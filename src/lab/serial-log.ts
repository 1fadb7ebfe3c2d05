import { open, stat } from 'node:fs/promises';
import { parseSerial, reportsIn, type GuestLine, type GuestReport } from './report.ts';

/** Part of a log, in bytes. A restore to an earlier moment is such a cut: what lies before it was abandoned. */
export interface SerialRange {
  readonly from?: number;
  readonly to?: number;
}

/** A log's present length: remember it where a restore happens, to cut there later. */
export async function serialOffset(path: string): Promise<number> {
  return (await stat(path).catch(() => ({ size: 0 }))).size;
}

export async function readSerial(path: string, range: SerialRange = {}): Promise<string> {
  const file = await open(path).catch(() => undefined);
  if (file === undefined) return '';
  try {
    const from = range.from ?? 0;
    const to = range.to ?? (await file.stat()).size;
    const buffer = Buffer.alloc(Math.max(0, to - from));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, from);
    return buffer.toString('latin1', 0, bytesRead);
  } finally {
    await file.close();
  }
}

export async function readGuestLines(path: string, range: SerialRange = {}): Promise<GuestLine[]> {
  return parseSerial(await readSerial(path, range));
}

/**
 * The reports of one guest along its own time line: those of each range, one after another. For a VM that ran to
 * byte `b`, was restored to its state at byte `a` and went on: `[{ to: a }, { from: b }]`.
 */
export async function readReports(
  path: string,
  ranges: readonly SerialRange[] = [{}],
): Promise<GuestReport[]> {
  const texts = await Promise.all(ranges.map((range) => readSerial(path, range)));
  return texts.flatMap(reportsIn);
}

/** The last lines, for a message about a guest that did not come up. */
export async function serialTail(path: string, lines = 8): Promise<string> {
  const from = Math.max(0, (await serialOffset(path)) - 4096);
  return (await readSerial(path, { from })).trimEnd().split('\n').slice(-lines).join('\n');
}
