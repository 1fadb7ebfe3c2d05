import { once } from 'node:events';
import { z } from 'zod';

import { asStaghornError, messageOf, StaghornError } from '../../errors/index.ts';
import { errorCode } from '../../protocol/resources.ts';
import type { RemoteProcess } from '../../transport/index.ts';
import { withHost, type AgentLink } from '../hosts/agent-link.ts';

/** Which part of a snapshot: that of one host, by the checksum of its manifest. */
export interface PartIdentity {
  readonly snapshot: string;
  readonly manifestSha256: string;
}

const ending = z.looseObject({ code: errorCode, message: z.string(), problems: z.array(z.string()) });
const tailBytes = 64 * 1024;

/**
 * A part as a host sends it: entries of a tar archive, as one zstd frame. It is read no faster than it is taken, and
 * leaving it early ends the sender.
 */
export async function* readPart(
  link: AgentLink,
  { snapshot, manifestSha256 }: PartIdentity,
  { prefix, isLast, signal }: { prefix: string; isLast: boolean; signal: AbortSignal },
): AsyncGenerator<Buffer, void, undefined> {
  const args = ['send', '--snapshot', snapshot, '--sha256', manifestSha256, '--prefix', prefix];
  const process = await link.runBeside(isLast ? [...args, '--last'] : args);
  const said = lastWords(process);
  const release = closeOnAbort(process, signal);
  try {
    for await (const chunk of process.stdout) yield chunk as Buffer;
    await requireSuccess(link, process, said, signal);
  } catch (error) {
    // A channel that is closed ends its stream with an error of its own.
    signal.throwIfAborted();
    throw asStaghornError(error, 'agent-lost', `host ${link.host}: the copy broke off: `);
  } finally {
    release();
    process.close();
  }
}

export interface PartContent {
  readonly content: AsyncIterable<Buffer>;
  readonly as: 'own' | 'copy';
  /** Disk images did not come with it, and are looked for where they were. */
  readonly withoutImages?: boolean;
  readonly signal: AbortSignal;
}

/** Gives a part to a host, which checks it. It is in that host's store when this returns, and not at all if it throws. */
export async function writePart(
  link: AgentLink,
  { snapshot, manifestSha256 }: PartIdentity,
  { content, as, withoutImages = false, signal }: PartContent,
): Promise<void> {
  const args = ['receive', '--snapshot', snapshot, '--sha256', manifestSha256, '--as', as];
  const process = await link.runBeside(withoutImages ? [...args, '--without-images'] : args);
  const said = lastWords(process);
  const release = closeOnAbort(process, signal);
  process.stdout.resume();
  const ended = process.exit;
  try {
    for await (const chunk of content) {
      if (process.stdin.write(chunk)) continue;
      // A receiver that refuses ends: nobody drains what is left then.
      const over = await Promise.race([
        once(process.stdin, 'drain').then(() => false),
        ended.then(() => true),
      ]);
      if (over) break;
    }
    process.stdin.end();
    await requireSuccess(link, process, said, signal);
  } finally {
    release();
    process.close();
  }
}

function closeOnAbort(process: RemoteProcess, signal: AbortSignal): () => void {
  const close = () => process.close();
  if (signal.aborted) close();
  signal.addEventListener('abort', close, { once: true });
  return () => signal.removeEventListener('abort', close);
}

/** What a process says on standard error, read as it comes. */
function lastWords({ stderr }: RemoteProcess): Promise<string> {
  let text = '';
  stderr.on('data', (chunk: Buffer) => (text = `${text}${chunk.toString()}`.slice(-tailBytes)));
  return new Promise((resolve) => stderr.once('close', () => resolve(text)).once('end', () => resolve(text)));
}

async function requireSuccess(
  link: AgentLink,
  process: RemoteProcess,
  said: Promise<string>,
  signal: AbortSignal,
): Promise<void> {
  const { code } = await process.exit;
  signal.throwIfAborted();
  if (code === 0) return;
  throw withHost(link.host, errorFrom(code, await said));
}

function errorFrom(code: number | null, text: string): StaghornError {
  const line = text.trim().split('\n').at(-1) ?? '';
  try {
    const { code, message, problems } = ending.parse(JSON.parse(line));
    return new StaghornError(code, message, { context: { problems } });
  } catch (error) {
    const how = code === null ? 'was lost with its connection' : `ended with exit code ${code}`;
    const words = line === '' ? '' : `: ${line}`;
    return new StaghornError('agent-lost', `the copy of a snapshot ${how}${words}`, {
      cause: messageOf(error),
    });
  }
}
