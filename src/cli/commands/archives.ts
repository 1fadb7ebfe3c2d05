import { createWriteStream } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Command } from 'commander';

import { archiveMediaType } from '../../archive/portable.ts';
import { asStaghornError, messageOf, StaghornError } from '../../errors/index.ts';
import { snapshot } from '../../protocol/resources.ts';
import { collectPair } from '../label-options.ts';
import type { Session, SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { findSnapshot } from '../snapshot-reference.ts';
import { formatBytes } from '../units.ts';
import { describeSnapshot } from '../views/snapshots.ts';

interface ImportOptions extends SessionOptions {
  readonly experiment: string;
  readonly name?: string;
  readonly map?: string[];
}

export function addArchiveCommands(program: Command, shell: Shell): void {
  remote(program.command('export <snapshot>'))
    .description('write a snapshot to one portable archive (tar, zstd)')
    .option('-o, --output <file>', 'where to; "-": stdout; ID.tar.zst if left out')
    .action(
      withSession(
        shell,
        async (session, { output }: SessionOptions & { output?: string }, reference: string) => {
          const { id } = await findSnapshot(session, reference);
          const file = output ?? `${id}.tar.zst`;
          const archive = await session.client.stream(`/v1/snapshots/${id}/export`, archiveMediaType);
          if (file === '-') return pipeline(archive, session.terminal.stdout, { end: false });
          const bytes = await writeArchive(archive, file);
          session.print({ file, bytes }, () => `${file}: ${formatBytes(bytes)}\n`);
        },
      ),
    );
  remote(program.command('import <file>'))
    .description('take a snapshot in from an archive that "export" wrote; "-": stdin')
    .requiredOption('--experiment <name>', 'the experiment that it becomes a snapshot of')
    .option('--name <name>', 'a name in place of the one that it has')
    .option('--map <host=host>', 'which host takes the part of which host of the archive', collectPair)
    .action(withSession(shell, takeIn));
}

async function takeIn(session: Session, options: ImportOptions, file: string): Promise<void> {
  const { experiment, name, map = [] } = options;
  const query = new URLSearchParams({ experiment });
  for (const pair of map) query.append('map', pair);
  if (name !== undefined) query.set('name', name);
  const source = file === '-' ? null : await openArchive(file);
  const taken = await session.client
    .upload(`/v1/snapshots/import?${query.toString()}`, snapshot, {
      content: source ?? Readable.from(session.terminal.stdin),
      mediaType: archiveMediaType,
    })
    .finally(() => source?.destroy());
  session.print(taken, () => describeSnapshot(taken));
}

async function openArchive(path: string): Promise<Readable> {
  try {
    return (await open(path, 'r')).createReadStream({ highWaterMark: 1024 * 1024 });
  } catch (error) {
    throw new StaghornError('invalid-input', `${path} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** Under another name until it is whole: an archive that was cut off is not left under its own. */
async function writeArchive(archive: Readable, file: string): Promise<number> {
  const unfinished = `${file}.partial`;
  const output = createWriteStream(unfinished, { mode: 0o600 });
  try {
    await pipeline(archive, output);
    await rename(unfinished, file);
    return output.bytesWritten;
  } catch (error) {
    await rm(unfinished, { force: true });
    throw asStaghornError(error, 'agent-lost', `${file} could not be written to its end: `);
  }
}
