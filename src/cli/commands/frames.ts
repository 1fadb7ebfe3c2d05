import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { z } from 'zod';

import { messageOf, StaghornError } from '../../errors/index.ts';
import { storedFrame } from '../../protocol/resources.ts';
import type { SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { findSnapshot } from '../snapshot-reference.ts';
import { formatBytes } from '../units.ts';
import { listFrames } from '../views/frames.ts';

interface FramesOptions extends SessionOptions {
  readonly pcapng?: string;
}

export function addFramesCommand(program: Command, shell: Shell): void {
  remote(program.command('frames <snapshot>'))
    .description('list the frames in flight of a snapshot, or write them to a capture file')
    .option('--pcapng <file>', 'write a pcapng file for Wireshark and others; "-": stdout')
    .action(
      withSession(shell, async (session, { pcapng }: FramesOptions, reference: string) => {
        const { id } = await findSnapshot(session, reference);
        const path = `/v1/snapshots/${id}/frames`;
        if (pcapng === undefined) {
          const frames = await session.get(path, z.array(storedFrame));
          session.print(frames, () => listFrames(frames));
          return;
        }
        const capture = await session.client.bytes(path, 'application/x-pcapng');
        if (pcapng === '-') {
          session.terminal.stdout.write(capture);
          return;
        }
        await writeCapture(pcapng, capture);
        session.print(
          { file: pcapng, bytes: capture.length },
          () => `${pcapng}: ${formatBytes(capture.length)}\n`,
        );
      }),
    );
}

async function writeCapture(path: string, capture: Buffer): Promise<void> {
  try {
    await writeFile(path, capture);
  } catch (error) {
    throw new StaghornError('invalid-input', `${path} cannot be written: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
