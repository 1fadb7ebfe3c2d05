import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import type { Controller, Parts } from './parts.ts';

/** The parts that the real command line stands on. Loaded late: a client needs neither SSH nor a database. */
export const realParts: Parts = {
  async createController({ brokerFile, ...options }): Promise<Controller> {
    const { createController } = await import('../controller/index.ts');
    const { readBrokerFile } = await import('../transport/rpc.ts');
    const broker = brokerFile === undefined ? undefined : await readBrokerFile(brokerFile);
    return createController({ ...options, broker });
  },
  async runAgent(args, signal): Promise<number> {
    // As a process of its own, from the bundle that also goes to hosts: its guardian is started from the same file.
    const program = fileURLToPath(new URL('../../dist/agent-bundle/agent.cjs', import.meta.url));
    const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'inherit', 'inherit'] });
    signal.addEventListener('abort', () => child.kill('SIGTERM'), { once: true });
    const [code] = (await once(child, 'exit')) as [number | null];
    return code ?? 1;
  },
  async loadLab() {
    const { labDown, labStatus, labUp, readLabFile } = await import('../lab/index.ts');
    const nameOf = async (lab: string) => (existsSync(lab) ? (await readLabFile(lab)).name : lab);
    return {
      up: async (file, options) => labUp(await readLabFile(file), options),
      down: async (lab) => labDown(await nameOf(lab)),
      status: async (lab) => labStatus(await nameOf(lab)),
    };
  },
};
