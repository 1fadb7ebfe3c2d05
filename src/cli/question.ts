import { createInterface } from 'node:readline/promises';

import type { Terminal } from './terminal.ts';

/** Asks a person; only "y" or "yes" is a yes. An end of input or Ctrl-C is a no. */
export async function confirm({ stdin, stderr }: Terminal, question: string): Promise<boolean> {
  const lines = createInterface({ input: stdin, output: stderr, terminal: false });
  const closed = new Promise<string>((resolve) => {
    lines.once('close', () => {
      resolve('');
    });
  });
  try {
    const answer = await Promise.race([lines.question(`${question} [y/N] `), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    lines.close();
  }
}
