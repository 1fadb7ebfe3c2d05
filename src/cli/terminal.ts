import type { Readable, Writable } from 'node:stream';

export type StopSignal = 'SIGINT' | 'SIGTERM';

/** What the command line has of the world around it: main.ts gives the process's, tests give their own. */
export interface Terminal {
  readonly stdin: Readable;
  /** Results. */
  readonly stdout: Writable;
  /** Progress, questions, errors. */
  readonly stderr: Writable;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** A person sits there: stdin and stderr are a terminal. */
  readonly interactive: boolean;
  /** Calls back at each such signal, in place of ending the process, until the returned function is called. */
  onSignal(signals: readonly StopSignal[], listener: () => void): () => void;
}

export function processTerminal(): Terminal {
  const { stdin, stdout, stderr, env } = process;
  return {
    stdin,
    stdout,
    stderr,
    env,
    interactive: stdin.isTTY && stderr.isTTY,
    onSignal(signals, listener) {
      for (const name of signals) process.on(name, listener);
      return () => {
        for (const name of signals) process.off(name, listener);
      };
    },
  };
}
