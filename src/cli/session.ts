import type { z } from 'zod';

import { StaghornError } from '../errors/index.ts';
import { fromProblem } from '../protocol/problem.ts';
import { operation, type Operation } from '../protocol/resources.ts';
import { ApiClient } from './client.ts';
import { findServer, type ConnectionOptions } from './connection.ts';
import { followOperation } from './follow.ts';
import { progressView } from './progress-view.ts';
import type { Terminal } from './terminal.ts';

export interface SessionOptions extends ConnectionOptions {
  readonly json?: boolean;
}

/** Left by a second Ctrl-C: ends the CLI with exit code 130. */
export class LeftBehind extends Error {}

/** One run of a command against a server. */
export class Session {
  readonly client: ApiClient;
  readonly terminal: Terminal;
  readonly isJson: boolean;

  constructor(client: ApiClient, terminal: Terminal, isJson: boolean) {
    this.client = client;
    this.terminal = terminal;
    this.isJson = isJson;
  }

  /** The result of the command: one JSON document, or text for people. */
  print(value: unknown, forPeople: () => string): void {
    printResult(this.terminal, this.isJson, value, forPeople);
  }

  get<T extends z.ZodType>(path: string, schema: T): Promise<z.output<T>> {
    return this.client.json('GET', path, schema);
  }

  /** Starts an operation, shows its progress and waits for its success; throws the error with which it ended. */
  async run(method: string, path: string, body?: unknown): Promise<Operation> {
    const begun = await this.client.json(method, path, operation, body === undefined ? {} : { body });
    return this.wait(begun.id);
  }

  /** Ctrl-C cancels the operation; a second one leaves it to itself. */
  async wait(id: string): Promise<Operation> {
    const view = progressView(this.terminal, { quiet: this.isJson });
    const leave = new AbortController();
    let interrupts = 0;
    const stopListening = this.terminal.onSignal(['SIGINT'], () => {
      interrupts += 1;
      if (interrupts > 1) leave.abort();
      else void this.#cancel(id, view.note);
    });
    try {
      const ended = await followOperation(this.client, id, { signal: leave.signal, onProgress: view.update });
      if (ended.state === 'cancelled')
        throw new StaghornError('cancelled', `the ${ended.kind} was cancelled`);
      if (ended.error !== null) throw fromProblem(ended.error);
      return ended;
    } catch (error) {
      throw leave.signal.aborted ? new LeftBehind(`left; operation ${id} goes on at the server`) : error;
    } finally {
      stopListening();
      view.close();
    }
  }

  async #cancel(id: string, note: (text: string) => void): Promise<void> {
    note(`staghorn: cancelling operation ${id}; Ctrl-C once more leaves it to itself`);
    try {
      await this.client.json('DELETE', `/v1/operations/${encodeURIComponent(id)}`, operation);
    } catch (error) {
      note(
        `staghorn: it could not be cancelled: ${error instanceof StaghornError ? error.message : String(error)}`,
      );
    }
  }
}

export async function openSession(terminal: Terminal, options: SessionOptions): Promise<Session> {
  const connection = await findServer(options, terminal.env);
  return new Session(new ApiClient(connection), terminal, options.json === true);
}

export function printResult(
  terminal: Terminal,
  isJson: boolean,
  value: unknown,
  forPeople: () => string,
): void {
  terminal.stdout.write(isJson ? `${JSON.stringify(value, null, 2)}\n` : forPeople());
}
