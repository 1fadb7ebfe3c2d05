import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import type { StaghornError } from '../errors/index.ts';
import { agentContract } from '../protocol/rpc.ts';
import type { Logger } from '../protocol/logger.ts';
import { SnapshotStore } from '../store/snapshot-directory.ts';
import {
  readBrokerFile,
  serveAtBroker,
  serveRpc,
  type RpcConnection,
  type RpcServer,
} from '../transport/rpc.ts';
import {
  defaultDirectories,
  intentDirectory,
  recoveryLock,
  type AgentDirectories,
} from './agent-directories.ts';
import { AgentService, type AgentNotices } from './agent-service.ts';
import { guard, parseAgent, startGuardian } from './recovery/guardian.ts';
import { IntentJournal } from './session/intent.ts';
import { runPartCommand } from './parts/part-command.ts';
import { recover } from './recovery/recover.ts';
import { sweepStore } from './recovery/sweep-store.ts';
import { withRecoveryLock } from './recovery/recovery-lock.ts';

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

/** Puts right what an earlier agent left, and says what that was. A guardian watches from now on. */
async function begin(directories: AgentDirectories, log: Logger): Promise<string | null> {
  // Never closed from here: that this process is gone is what its guardian waits for.
  startGuardian(fileURLToPath(import.meta.url), directories);
  const journal = new IntentJournal(intentDirectory(directories));
  const store = new SnapshotStore(directories.store);
  const recovered = await withRecoveryLock(recoveryLock(directories), async () => {
    const lines = await recover(journal, store, log);
    await sweepStore(store, journal, log);
    return lines;
  });
  return recovered.length === 0 ? null : recovered.join('; ');
}

/** Serves one controller until the connection ends, and ends with it what was under way. */
async function serve(
  connection: RpcConnection,
  { uplink, ...parts }: { uplink: Uplink; directories: AgentDirectories; recovered: string | null },
): Promise<void> {
  const service = new AgentService({ ...parts, notices: uplink, log: uplink.log });
  const server = serveRpc(agentContract, service.handlers, connection);
  uplink.server = server;
  await server.closed;
  await service.close('the connection to the controller ended');
}

/** The agent that a controller starts: it lives as long as its standard input. */
async function serveInput(directories: AgentDirectories): Promise<void> {
  const uplink = new Uplink();
  const recovered = await begin(directories, uplink.log);
  const connection = { readable: process.stdin, writable: process.stdout, host: 'controller' };
  await serve(connection, { uplink, directories, recovered });
}

/** The agent that a site starts: it connects to the broker and lives until SIGTERM. */
async function serveBroker(directories: AgentDirectories, brokerFile: string, name: string): Promise<void> {
  const settings = await readBrokerFile(brokerFile);
  const stop = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => stop.abort());
  let recovered = await begin(directories, new Uplink().log);
  await serveAtBroker({
    settings,
    name,
    signal: stop.signal,
    serve: (connection) => {
      const parts = { uplink: new Uplink(), directories, recovered };
      recovered = null;
      return serve(connection, parts);
    },
    onConnected: () => console.error(`connected to the broker ${settings.host}:${settings.port} as ${name}`),
    onTrouble: ({ code, message }) => console.error(`${code}: ${message}`),
  });
}

async function main(): Promise<void> {
  const [command, ...rest] = process.argv.slice(2);
  if (command === 'send' || command === 'receive') return runPartCommand(command, rest);
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      store: { type: 'string' },
      run: { type: 'string' },
      agent: { type: 'string' },
      broker: { type: 'string' },
      host: { type: 'string' },
    },
  });
  const { agent, broker, host = hostname(), ...changed } = values;
  const directories = { ...defaultDirectories, ...changed };
  if (positionals[0] === 'guard') await guard(directories, parseAgent(agent));
  else if (broker === undefined) await serveInput(directories);
  else await serveBroker(directories, broker, host);
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
