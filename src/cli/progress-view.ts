import { SingleBar } from 'cli-progress';

import type { Progress } from '../protocol/resources.ts';
import type { Terminal } from './terminal.ts';
import { formatBytes } from './units.ts';

/** Shows how far something is. */
export interface ProgressView {
  readonly update: (progress: Progress) => void;
  /** A line above the progress. */
  readonly note: (text: string) => void;
  readonly close: () => void;
}

/** A bar on a terminal, lines on stderr otherwise, nothing where stderr is kept for an error in JSON. */
export function progressView(terminal: Terminal, { quiet }: { quiet: boolean }): ProgressView {
  if (quiet) return { update: () => undefined, note: () => undefined, close: () => undefined };
  return terminal.interactive ? barView(terminal) : lineView(terminal);
}

function lineView({ stderr }: Terminal): ProgressView {
  let last = '';
  const write = (text: string) => {
    if (text !== last) stderr.write(`${text}\n`);
    last = text;
  };
  return {
    update: ({ step, message }) => {
      write(`${step}: ${message}`);
    },
    note: write,
    close: () => undefined,
  };
}

function barView(terminal: Terminal): ProgressView {
  const bar = new SingleBar({
    stream: terminal.stderr,
    clearOnComplete: true,
    hideCursor: true,
    gracefulExit: false,
    format: (_options, { progress, value, total }, payload: { message?: string; sized?: boolean }) => {
      const message = payload.message ?? '';
      if (payload.sized !== true) return message;
      const filled = Math.round(progress * 30);
      const drawn = '█'.repeat(filled) + '░'.repeat(30 - filled);
      return `${drawn} ${Math.round(progress * 100)} %  ${formatBytes(value)} of ${formatBytes(total)}  ${message}`;
    },
  });
  bar.start(1, 0, { message: '' });
  return {
    update: ({ step, message, doneBytes, totalBytes }) => {
      const sized = doneBytes !== undefined && totalBytes !== undefined && totalBytes > 0;
      bar.setTotal(sized ? totalBytes : 1);
      bar.update(sized ? doneBytes : 0, { message: `${step}: ${message}`, sized });
    },
    note: (text) => {
      terminal.stderr.write(`\r\u001b[K${text}\n`);
    },
    close: () => {
      bar.stop();
    },
  };
}
