import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { StaghornError } from '../errors/index.ts';
import { decodeFrameFile, type FrameInFlight } from '../network/frame-file.ts';
import { sha256Of } from '../store/snapshot-directory.ts';
import type { HostManifest } from '../store/manifest.ts';

/** The frames in flight of a snapshot, in the order of their arrival. @throws StaghornError 'snapshot-damaged' */
export async function readStoredFrames(
  directory: string,
  { frames }: HostManifest,
): Promise<readonly FrameInFlight[]> {
  const content = await readFile(join(directory, frames.file));
  if (sha256Of(content) !== frames.sha256) {
    throw new StaghornError('snapshot-damaged', `${frames.file} does not have the checksum that was sealed`);
  }
  return decodeFrameFile(content).frames;
}
