import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { StaghornError } from '../../errors/index.ts';
import { decodeFrameFile, type FrameInFlight } from '../../network/frame-file.ts';
import { sha256Of } from '../../store/snapshot-directory.ts';
import type { Placement } from '../../protocol/fork.ts';
import type { HostManifest } from '../../store/manifest.ts';
import { placedDevice } from '../fork/names.ts';

/**
 * The frames in flight of a snapshot, in the order of their arrival.
 * @param placement of a fork: its ports have names of their own
 * @throws StaghornError 'snapshot-damaged'
 */
export async function readStoredFrames(
  directory: string,
  { frames }: Pick<HostManifest, 'frames'>,
  placement: Placement | null = null,
): Promise<readonly FrameInFlight[]> {
  const content = await readFile(join(directory, frames.file));
  if (sha256Of(content) !== frames.sha256) {
    throw new StaghornError('snapshot-damaged', `${frames.file} does not have the checksum that was sealed`);
  }
  const stored = decodeFrameFile(content).frames;
  if (placement === null) return stored;
  return stored.map((frame) => ({ ...frame, port: placedDevice(frame.port, placement.fork) }));
}
