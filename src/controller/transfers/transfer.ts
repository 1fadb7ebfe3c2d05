import type { Progress } from '../../protocol/resources.ts';
import type { AgentLink } from '../hosts/agent-link.ts';
import { readPart, writePart, type PartIdentity } from './part-channel.ts';

const reportPeriodMs = 200;

export interface PartCopy extends PartIdentity {
  readonly from: AgentLink;
  readonly to: AgentLink;
  readonly report: (progress: Progress) => void;
  readonly signal: AbortSignal;
}

/**
 * Copies one host's part of a snapshot to another host, through the controller, with little memory. When it returns
 * the target has it, every checksum compared: `restoreCheck` there finds it by the checksum of its manifest. It goes
 * with the snapshot. Where it is already, nothing is copied. Whatever fails leaves nothing.
 */
export async function copyPart({ from, to, report, signal, ...part }: PartCopy): Promise<void> {
  const { isHere } = await to.call('hasPart', part, 30_000, signal);
  if (isHere) return;
  const message = `copying the part of ${from.host} to ${to.host}`;
  const sent = readPart(from, part, { prefix: '', isLast: true, signal });
  const content = counted(sent, (doneBytes) => report({ step: 'copy', message, doneBytes }));
  await writePart(to, part, { content, as: 'copy', signal });
}

/** The same stream; tells now and then how much has passed. */
export async function* counted(
  source: AsyncIterable<Buffer>,
  tell: (doneBytes: number) => void,
): AsyncGenerator<Buffer, void, undefined> {
  let doneBytes = 0;
  let toldAtMs = -Infinity;
  for await (const chunk of source) {
    doneBytes += chunk.length;
    yield chunk;
    if (performance.now() - toldAtMs < reportPeriodMs) continue;
    toldAtMs = performance.now();
    tell(doneBytes);
  }
  tell(doneBytes);
}
