import { StaghornError } from '../errors/index.ts';
import { unlessAborted, withDeadline } from './deadline.ts';
import { deployAgent, type DeployedAgent, type DeployOptions } from './agent-deploy.ts';
import { startAgent, startCommand, type StartOptions } from './agent-start.ts';
import { createRpcClient, type RpcClient } from './rpc-client.ts';
import type { RpcContract } from './rpc-contract.ts';
import { openSshSession } from './ssh-open.ts';
import type { RemoteProcess } from './ssh-process.ts';
import type { SshSession } from './ssh-session.ts';
import type { SshTarget } from './ssh-settings.ts';

export interface ConnectAgentOptions extends DeployOptions, StartOptions {
  /** For the login; default 30 000. */
  readonly connectTimeoutMs?: number | undefined;
  /** Default: 64 MiB. The agent must have the same. */
  readonly maxMessageBytes?: number | undefined;
}

export interface ConnectedAgent<C extends RpcContract> {
  readonly client: RpcClient<C>;
  readonly session: SshSession;
  readonly deployed: DeployedAgent;
  /** Runs another process of the same agent beside it, with arguments of its own. @throws StaghornError 'host-unreachable' */
  runBeside(args: readonly string[]): Promise<RemoteProcess>;
  /** Ends the agent's input, waits up to 5 s for the agent to end by that, and then ends the connection. */
  close(): Promise<void>;
}

const defaultConnectTimeoutMs = 30_000;
// What an agent may take to put its things in order when its input ends.
const exitGraceMs = 5000;

/**
 * Logs in to a host, brings the agent there if it is missing, starts it, and speaks the contract with it.
 * @throws StaghornError as openSshSession, deployAgent and startAgent do; nothing is left open then
 */
export async function connectAgent<C extends RpcContract>(
  contract: C,
  target: SshTarget,
  options: ConnectAgentOptions,
): Promise<ConnectedAgent<C>> {
  const { connectTimeoutMs = defaultConnectTimeoutMs, signal, maxMessageBytes } = options;
  const session = await openSshSession({ ...target, timeoutMs: connectTimeoutMs, signal });
  try {
    const deployed = await deployAgent(session, options);
    const agent = await startAgent(session, deployed, options);
    const client = createRpcClient(contract, { ...agent, maxMessageBytes });
    const close = async () => {
      client.close();
      await withDeadline(
        { timeoutMs: exitGraceMs, late: () => new StaghornError('deadline-exceeded', '') },
        (limit) => unlessAborted(agent.exit, limit),
      ).catch(() => undefined);
      await session.close();
    };
    const runBeside = (args: readonly string[]) => session.exec(startCommand(deployed.command, { args }));
    return { client, session, deployed, runBeside, close };
  } catch (error) {
    await session.close();
    throw error;
  }
}
