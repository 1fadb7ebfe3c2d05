import { spawn } from 'node:child_process';
import type { Writable } from 'node:stream';

import { intentDirectory, recoveryLock, type AgentDirectories } from './agent-directories.ts';
import { IntentJournal } from './intent.ts';
import { recover } from './recover.ts';
import { withRecoveryLock } from './recovery-lock.ts';
import { SnapshotStore } from '../store/snapshot-directory.ts';

/**
 * The guardian: a second process that does nothing but wait for its agent's end, however it comes (the kernel
 * closes the pipe between them), and then puts right what the agent left half-done. So a killed agent leaves no
 * VM stopped, even if no controller is there to start another agent.
 */
export function startGuardian(program: string, directories: AgentDirectories): Writable {
  const child = spawn(
    process.execPath,
    [program, 'guard', '--store', directories.store, '--run', directories.run],
    { detached: true, stdio: ['pipe', 'ignore', 'ignore'] },
  );
  child.unref();
  // A guardian that cannot be written to any more is gone; the next agent recovers in its place.
  child.stdin.on('error', () => undefined);
  return child.stdin;
}

const silent = () => undefined;

/** The guardian's whole life. */
export async function guard(directories: AgentDirectories): Promise<void> {
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.once('close', resolve));
  const journal = new IntentJournal(intentDirectory(directories));
  if ((await journal.readAll()).length === 0) return;
  const log = { debug: silent, info: silent, warn: silent, error: silent };
  await withRecoveryLock(recoveryLock(directories), () =>
    recover(journal, new SnapshotStore(directories.store), log),
  );
}
