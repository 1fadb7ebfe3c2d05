import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { HostCall, HostCalls, HostReply } from './protocol.ts';

interface Waiting {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** The process that plays a host's agent (host-process.ts), inside the host's network namespace. */
export class Host {
  readonly name: string;
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  #calls = 0;

  constructor(options: {
    name: string;
    namespace: string;
    program: string;
    /** Where its switch has its sockets. */
    switchDirectory: string;
  }) {
    const { name, namespace, program, switchDirectory } = options;
    this.name = name;
    this.#process = spawn('nsenter', [`--net=/run/netns/${namespace}`, process.execPath, program], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
      env: { ...process.env, OVS_RUNDIR: switchDirectory },
    });
    this.#process.on('message', (reply: HostReply) => this.#take(reply));
    this.#process.once('exit', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`the process of ${name} ended`));
    });
  }

  call<Call extends HostCall>(
    call: Call,
    params: HostCalls[Call]['params'],
  ): Promise<HostCalls[Call]['result']> {
    const number = this.#calls++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve: resolve as (result: unknown) => void, reject });
      this.#process.send({ number, call, params });
    });
  }

  async end(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exit = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exit;
  }

  #take({ number, result, error }: HostReply): void {
    const waiting = this.#waiting.get(number);
    this.#waiting.delete(number);
    if (error === undefined) waiting?.resolve(result);
    else waiting?.reject(new Error(`${this.name}: ${error}`));
  }
}
