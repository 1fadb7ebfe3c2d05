import { once } from 'node:events';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { endpointHello, endpointReport } from './report.ts';
import type { EndpointHello, EndpointReport } from './report.ts';

/** When an endpoint stood still, or went on. */
export interface EndpointInstant {
  /** On CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  readonly virtualNs: bigint;
}

/** A command that somebody else writes to the endpoint's socket, such as the barrier's thread. */
export interface PreparedChange {
  readonly fd: number;
  readonly bytes: Uint8Array;
  readonly happened: Promise<EndpointInstant>;
}

interface Waiting {
  readonly resolve: (line: string) => void;
  readonly reject: (error: Error) => void;
}

/** A connection to one endpoint: commands and answers are lines, in the same order (test/traffic/control.c). */
export class Endpoint {
  readonly name: string;
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #unread = '';
  #gone: Error | undefined;

  private constructor(name: string, socket: Socket) {
    this.name = name;
    this.#socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#take(text));
    socket.on('error', (error) => this.#end(error));
    socket.on('close', () => this.#end(new Error(`endpoint ${name} is gone`)));
  }

  static async connect(name: string, path: string): Promise<Endpoint> {
    const socket = connect({ path });
    await once(socket, 'connect');
    return new Endpoint(name, socket);
  }

  /** Stands still from the instant at which it reads what somebody writes. */
  prepareStop(): PreparedChange {
    return this.#prepare('stop', 'stopped');
  }

  prepareContinue(): PreparedChange {
    return this.#prepare('cont', 'running');
  }

  async stop(): Promise<EndpointInstant> {
    return instantOf(await this.#ask('stop'), 'stopped');
  }

  async continue(): Promise<EndpointInstant> {
    return instantOf(await this.#ask('cont'), 'running');
  }

  /** Sends nothing more, and goes on receiving. */
  async mute(): Promise<void> {
    expectAnswer(await this.#ask('mute'), 'mute');
  }

  async unmute(): Promise<void> {
    expectAnswer(await this.#ask('unmute'), 'loud');
  }

  /** Writes its whole state into a file, while it stands still. */
  async save(path: string): Promise<void> {
    expectAnswer(await this.#ask(`save ${path}`), 'saved');
  }

  async report(): Promise<EndpointReport> {
    return endpointReport.parse(JSON.parse(await this.#ask('report')));
  }

  async hello(): Promise<EndpointHello> {
    return endpointHello.parse(JSON.parse(await this.#ask('hello')));
  }

  close(): void {
    this.#socket.destroy();
  }

  #prepare(command: string, answer: string): PreparedChange {
    // Node gives a socket's descriptor only on its internal handle.
    const { _handle: handle } = this.#socket as Socket & {
      readonly _handle?: { readonly fd?: number } | null;
    };
    if (handle?.fd === undefined || handle.fd < 0) throw new Error(`endpoint ${this.name} is gone`);
    const happened = this.#answer().then((line) => instantOf(line, answer));
    happened.catch(() => undefined);
    return { fd: handle.fd, bytes: Buffer.from(`${command}\n`), happened };
  }

  #ask(command: string): Promise<string> {
    const answer = this.#answer();
    this.#socket.write(`${command}\n`);
    return answer;
  }

  #answer(): Promise<string> {
    return new Promise((resolve, reject) => {
      if (this.#gone === undefined) this.#waiting.push({ resolve, reject });
      else reject(this.#gone);
    });
  }

  #take(text: string): void {
    const lines = (this.#unread + text).split('\n');
    this.#unread = lines.pop() ?? '';
    for (const line of lines) this.#waiting.shift()?.resolve(line);
  }

  #end(error: Error): void {
    this.#gone ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#gone);
  }
}

function expectAnswer(line: string, wanted: string): void {
  if (line !== wanted) throw new Error(`the endpoint answered "${line}", not "${wanted}"`);
}

function instantOf(line: string, wanted: string): EndpointInstant {
  const [state = '', atNs = '', virtualNs = ''] = line.split(' ');
  expectAnswer(state, wanted);
  return { atNs: BigInt(atNs), virtualNs: BigInt(virtualNs) };
}
