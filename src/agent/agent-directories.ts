import { join } from 'node:path';

/** Where an agent keeps things on its host. */
export interface AgentDirectories {
  /** Snapshots. */
  readonly store: string;
  /** What is of no use after a reboot: intents, locks, logs of restored QEMUs. */
  readonly run: string;
}

export const defaultDirectories: AgentDirectories = {
  store: '/var/lib/staghorn/snapshots',
  run: '/run/staghorn',
};

export const intentDirectory = (directories: AgentDirectories) => join(directories.run, 'barriers');
export const recoveryLock = (directories: AgentDirectories) => join(directories.run, 'recovery.lock');
