import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';

import { intentDirectory, recoveryLock, type AgentDirectories } from '../agent-directories.ts';
import { IntentJournal } from '../session/intent.ts';
import { recover } from './recover.ts';
import { withRecoveryLock } from './recovery-lock.ts';
import { SnapshotStore } from '../../store/snapshot-directory.ts';
import { isRunning, thisProcess, type ProcessIdentity } from '../../vmm/process-identity.ts';

/**
 * The guardian: a second process that does nothing but wait for its agent's end, however it comes (the kernel
 * closes the pipe between them), and then puts right what the agent left half-done. So a killed agent leaves no
 * VM stopped, even if no controller is there to start another agent.
 */
export function startGuardian(program: string, directories: AgentDirectories): void {
  const child = spawn(
    process.execPath,
    [
      program,
      'guard',
      '--store',
      directories.store,
      '--run',
      directories.run,
      '--agent',
      formatIdentity(thisProcess()),
    ],
    { detached: true, stdio: ['pipe', 'ignore', 'ignore'] },
  );
  child.unref();
  // A guardian that cannot be written to any more is gone; the next agent recovers in its place.
  child.stdin.on('error', () => undefined);
}

const formatIdentity = ({ pid, startTicks }: ProcessIdentity) => `${pid}:${startTicks}`;

/** The agent that a guardian's command line names. */
export function parseAgent(text: string | undefined): ProcessIdentity {
  const [pid, startTicks] = (text ?? '').split(':');
  if (startTicks === undefined) throw new TypeError('a guardian has to be told its agent: --agent PID:TICKS');
  return { pid: Number(pid), startTicks: BigInt(startTicks) };
}

const silent = () => undefined;
const pollMs = 2;

/** The kernel closes the pipe of a dying process before the process counts as dead: this is over in a moment. */
async function end(agent: ProcessIdentity): Promise<void> {
  while (await isRunning(agent)) await delay(pollMs);
}

/** The guardian's whole life. */
export async function guard(directories: AgentDirectories, agent: ProcessIdentity): Promise<void> {
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.once('close', resolve));
  const journal = new IntentJournal(intentDirectory(directories));
  if ((await journal.readAll(silent)).length === 0) return;
  await end(agent);
  const log = { debug: silent, info: silent, warn: silent, error: silent };
  await withRecoveryLock(recoveryLock(directories), () =>
    recover(journal, new SnapshotStore(directories.store), log),
  );
}
