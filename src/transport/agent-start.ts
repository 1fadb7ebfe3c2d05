import { StaghornError } from '../errors/index.ts';
import type { DeployedAgent } from './agent-deploy.ts';
import { transportLimits } from './limits.ts';
import { OutputTail } from './output-tail.ts';
import type { RpcConnection } from './rpc-peer.ts';
import { shellCommand } from './shell-quote.ts';
import type { ExitStatus, RemoteProcess } from './ssh-process.ts';
import type { SshSession } from './ssh-session.ts';

export interface StartOptions {
  readonly args?: readonly string[] | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
}

/** A running agent; its standard input and output are an RPC connection. */
export interface StartedAgent extends RpcConnection {
  /** Never rejects. */
  readonly exit: Promise<ExitStatus>;
  /** The last 8 KiB of its standard error. */
  stderrTail(): string;
  close(): void;
}

// The end of the output, the exit status and the last of standard error come one after the other.
const explainGraceMs = 3000;

/**
 * Starts a deployed agent. That it is alive shows with its first answer; if it dies, the RPC connection ends with an
 * 'agent-lost' that says how and quotes its standard error.
 * @throws StaghornError 'host-unreachable'
 */
export async function startAgent(
  session: SshSession,
  deployed: Pick<DeployedAgent, 'command'>,
  options: StartOptions = {},
): Promise<StartedAgent> {
  const process = await session.exec(startCommand(deployed.command, options));
  const stderr = new OutputTail(process.stderr, transportLimits.stderrTailBytes);
  return {
    readable: process.stdout,
    writable: process.stdin,
    host: session.host,
    exit: process.exit,
    stderrTail: () => stderr.text,
    explainEnd: () => explainEnd(session, process, stderr),
    close: () => process.close(),
  };
}

// env(1) stands behind sudo, which would clear what stood before it. "exec" leaves no shell between sshd and agent.
export function startCommand(command: readonly string[], { args = [], env = {} }: StartOptions): string {
  const isSudo = command[0] === 'sudo';
  const prefix = isSudo ? command.slice(0, 2) : [];
  const rest = isSudo ? command.slice(2) : command;
  const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  const environment = variables.length === 0 ? [] : ['env', ...variables];
  return `exec ${shellCommand([...prefix, ...environment, ...rest, ...args])}`;
}

async function explainEnd(
  session: SshSession,
  process: RemoteProcess,
  stderr: OutputTail,
): Promise<StaghornError> {
  const { promise: patience, cancel } = cancellableDelay(explainGraceMs);
  const status = await Promise.race([process.exit, patience]);
  await Promise.race([stderr.ended, patience]);
  cancel();
  const words = stderr.text === '' ? '' : `. Its last words: ${stderr.text}`;
  const text = `the agent on host ${session.host} ${describeExit(status)}${words}`;
  return new StaghornError('agent-lost', text, { context: { host: session.host } });
}

function describeExit(status: ExitStatus | undefined): string {
  if (status === undefined) return 'closed its output';
  if (status.signal !== null) return `was killed by ${status.signal}`;
  return status.code === null
    ? 'was lost with the connection to its host'
    : `exited with code ${status.code}`;
}

function cancellableDelay(delayMs: number): { promise: Promise<undefined>; cancel: () => void } {
  let timer: NodeJS.Timeout;
  const promise = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), delayMs);
  });
  return { promise, cancel: () => clearTimeout(timer) };
}
