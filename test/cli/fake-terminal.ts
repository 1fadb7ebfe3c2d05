import { PassThrough, Writable } from 'node:stream';

import type { StopSignal, Terminal } from '../../src/cli/terminal.ts';

/** A terminal that a test types at and reads from. */
export class FakeTerminal implements Terminal {
  readonly stdin = new PassThrough();
  readonly out: Buffer[] = [];
  err = '';
  readonly stdout = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      this.out.push(chunk);
      done();
    },
  });
  readonly stderr = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      this.err += chunk.toString();
      done();
    },
  });
  readonly env: Record<string, string>;
  readonly interactive: boolean;
  readonly #listeners = new Set<{ signals: readonly StopSignal[]; listener: () => void }>();

  constructor({
    env = {},
    interactive = false,
  }: { env?: Record<string, string>; interactive?: boolean } = {}) {
    // Nothing of the machine that the tests run on.
    this.env = { STAGHORN_STATE_DIR: '/nonexistent', ...env };
    this.interactive = interactive;
    Object.assign(this.stderr, { isTTY: interactive });
  }

  onSignal(signals: readonly StopSignal[], listener: () => void): () => void {
    const entry = { signals, listener };
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  /** Whether a signal would be heard; else it would end the process. */
  hears(signal: StopSignal): boolean {
    return [...this.#listeners].some(({ signals }) => signals.includes(signal));
  }

  signal(signal: StopSignal): void {
    for (const { signals, listener } of this.#listeners) if (signals.includes(signal)) listener();
  }

  get text(): string {
    return Buffer.concat(this.out).toString();
  }
}
