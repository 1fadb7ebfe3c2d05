import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import type { StaghornError } from '../errors/index.ts';
import { agentContract } from '../protocol/rpc.ts';
import type { Logger } from '../protocol/logger.ts';
import { SnapshotStore } from '../store/snapshot-directory.ts';
import { serveRpc, type RpcServer } from '../transport/rpc.ts';
import {
  defaultDirectories,
  intentDirectory,
  recoveryLock,
  type AgentDirectories,
} from './agent-directories.ts';
import { AgentService, type AgentNotices } from './agent-service.ts';
import { guard, parseAgent, startGuardian } from './guardian.ts';
import { IntentJournal } from './intent.ts';
import { runPartCommand } from './part-command.ts';
import { recover } from './recover.ts';
import { sweepStore } from './sweep-store.ts';
import { withRecoveryLock } from './recovery-lock.ts';

type Server = RpcServer<typeof agentContract>;

/** Progress of a copy is told this often at most. */
const progressPeriodMs = 100;

/** Log records and notices go to the controller; before it listens, and when it is gone, they have nowhere to go. */
class Uplink implements AgentNotices {
  server: Server | undefined;
  #lastProgressAtMs = 0;

  readonly log: Logger = {
    debug: (fields, message) => this.#log('debug', fields, message),
    info: (fields, message) => this.#log('info', fields, message),
    warn: (fields, message) => this.#log('warn', fields, message),
    error: (fields, message) => this.#log('error', fields, message),
  };

  progress(barrier: string, step: string, doneBytes: number, totalBytes: number): void {
    const nowMs = performance.now();
    if (nowMs - this.#lastProgressAtMs < progressPeriodMs && doneBytes < totalBytes) return;
    this.#lastProgressAtMs = nowMs;
    this.#send(this.server?.notify('progress', { barrier, step, doneBytes, totalBytes }));
  }

  barrierLost(barrier: string, { code, message: reason, context }: StaghornError): void {
    const { port = null } = context;
    this.#send(this.server?.notify('barrierLost', { barrier, reason, code, port }));
  }

  #log(level: 'debug' | 'info' | 'warn' | 'error', fields: Record<string, unknown>, message: string): void {
    this.#send(this.server?.notify('log', { level, message, fields }));
  }

  #send(sending: Promise<void> | undefined): void {
    sending?.catch(() => undefined);
  }
}

async function serve(directories: AgentDirectories): Promise<void> {
  // Never closed from here: that this process is gone is what its guardian waits for.
  startGuardian(fileURLToPath(import.meta.url), directories);
  const uplink = new Uplink();
  const journal = new IntentJournal(intentDirectory(directories));
  const store = new SnapshotStore(directories.store);
  const recovered = await withRecoveryLock(recoveryLock(directories), async () => {
    const lines = await recover(journal, store, uplink.log);
    await sweepStore(store, journal, uplink.log);
    return lines;
  });
  const service = new AgentService({
    directories,
    notices: uplink,
    log: uplink.log,
    recovered: recovered.length === 0 ? null : recovered.join('; '),
  });
  const server = serveRpc(agentContract, service.handlers, {
    readable: process.stdin,
    writable: process.stdout,
    host: 'controller',
  });
  uplink.server = server;
  await server.closed;
  await service.close('the connection to the controller ended');
}

async function main(): Promise<void> {
  const [command, ...rest] = process.argv.slice(2);
  if (command === 'send' || command === 'receive') return runPartCommand(command, rest);
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { store: { type: 'string' }, run: { type: 'string' }, agent: { type: 'string' } },
  });
  const { agent, ...changed } = values;
  const directories = { ...defaultDirectories, ...changed };
  await (positionals[0] === 'guard' ? guard(directories, parseAgent(agent)) : serve(directories));
}

// Standard output belongs to the RPC: whatever a library prints must not end up in it.
console.log = console.error;
main().then(
  () => process.exit(0),
  (error: unknown) => {
    console.error(error);
    process.exit(1);
  },
);
