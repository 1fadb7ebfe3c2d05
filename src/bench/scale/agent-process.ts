import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { fileURLToPath } from 'node:url';

import { agentContract } from '../../protocol/rpc.ts';
import type { AgentConnection } from '../../controller/hosts/agent-link.ts';
import { createRpcClient } from '../../transport/rpc.ts';

const main = fileURLToPath(new URL('agents-main.js', import.meta.url));

/** Simulated agents in a process of their own, so that what they cost is not counted as the controller's. */
export class AgentProcess {
  readonly #child: ChildProcess;
  readonly #socket: string;

  private constructor(child: ChildProcess, socket: string) {
    this.#child = child;
    this.#socket = socket;
  }

  static async start(socket: string, hosts: number, vmsPerHost: number): Promise<AgentProcess> {
    const args = [main, socket, String(hosts), String(vmsPerHost)];
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    await Promise.race([
      once(child.stdout, 'data'),
      once(child, 'exit').then(([code]) => {
        throw new Error(`the simulated agents ended with ${code}`);
      }),
    ]);
    return new AgentProcess(child, socket);
  }

  /** A connection whose bytes are those of an agent's. */
  async connect(host: string): Promise<AgentConnection> {
    const stream = connect(this.#socket);
    await once(stream, 'connect');
    const client = createRpcClient(agentContract, { readable: stream, writable: stream, host });
    return {
      client,
      close: async () => {
        client.close();
        stream.destroy();
      },
    };
  }

  /** What all agents together have used of the CPUs, which they share with the controller here. */
  get cpuMs(): number {
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8');
    // proc_pid_stat(5): utime and stime are the 12th and 13th after the name; Linux counts them in 1/100 s (USER_HZ).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 10;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill();
    await ended;
  }
}
