import { setPriority } from 'node:os';
import { parseArgs } from 'node:util';

import { asStaghornError, StaghornError } from '../../errors/index.ts';
import { SnapshotStore } from '../../store/snapshot-directory.ts';
import { defaultDirectories } from '../agent-directories.ts';
import { receivePart, sendPart, type ReceiveOptions } from './part-stream.ts';

const lowestPriority = 19;

/**
 * `agent send` and `agent receive`: a part of a snapshot on standard output, or from standard input. They are
 * processes of their own beside the agent, so that gigabytes pass beside its calls, and stop nobody. How it ended
 * is told on standard error, as one line of JSON, and by the exit code.
 */
export async function runPartCommand(command: 'send' | 'receive', args: string[]): Promise<void> {
  setPriority(lowestPriority);
  try {
    await (command === 'send' ? send(args) : receive(args));
  } catch (error) {
    const { code, message, context } = asStaghornError(error, 'internal');
    const line = `${JSON.stringify({ code, message, problems: context.problems ?? [] })}\n`;
    await new Promise((resolve) => process.stderr.write(line, resolve));
    process.exit(1);
  }
}

const common = {
  store: { type: 'string' },
  snapshot: { type: 'string' },
  sha256: { type: 'string' },
} as const;

async function send(args: string[]): Promise<void> {
  const options = { ...common, prefix: { type: 'string' }, last: { type: 'boolean' } } as const;
  const { values } = parseArgs({ args, options });
  const { store, prefix = '', last: isLast = false } = values;
  await sendPart(storeAt(store), { ...identityOf(values), prefix, isLast }, process.stdout);
  // What is in the pipe is read before the process ends.
  await new Promise((resolve) => process.stdout.write('', resolve));
}

async function receive(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { ...common, as: { type: 'string' }, 'without-images': { type: 'boolean' } },
  });
  const as = values.as === 'own' ? 'own' : 'copy';
  const input = process.stdin as AsyncIterable<Buffer>;
  const withoutImages = values['without-images'] ?? false;
  const expected: ReceiveOptions = { ...identityOf(values), as, withoutImages };
  const bytes = await receivePart(storeAt(values.store), expected, input);
  process.stdout.write(`${JSON.stringify({ bytes })}\n`);
}

const storeAt = (path: string | undefined) => new SnapshotStore(path ?? defaultDirectories.store);

function identityOf({ snapshot, sha256 }: { snapshot?: string | undefined; sha256?: string | undefined }) {
  if (snapshot === undefined || sha256 === undefined)
    throw new StaghornError('invalid-input', '--snapshot and --sha256 are needed');
  return { snapshot, manifestSha256: sha256 };
}
