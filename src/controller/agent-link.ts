import { messageOf, StaghornError } from '../errors/index.ts';
import type { Logger } from '../protocol/logger.ts';
import type { HostSpec } from '../protocol/resources.ts';
import {
  agentContract,
  protocolVersion,
  type AgentContract,
  type AgentMethod,
  type AgentParams,
  type AgentResult,
} from '../protocol/rpc.ts';
import { version } from '../protocol/version.ts';
import {
  connectAgent,
  type BundleFile,
  type ConnectedAgent,
  type RemoteProcess,
} from '../transport/index.ts';
import { clockOffset, type ClockExchange, type ClockOffset } from './clock-offset.ts';

const helloTimeoutMs = 90_000;
const clockTimeoutMs = 5_000;
const clockExchanges = 5;

export interface BarrierNotices {
  progress(step: string, doneBytes: number, totalBytes: number): void;
  /** The agent is gone (lost) or has ended the barrier by itself. */
  trouble(trouble: { lost: boolean; error: StaghornError }): void;
}

/** The connection to the agent of one host. Once `isOpen` is false it stays so: a new link takes its place. */
export class AgentLink {
  readonly host: string;
  readonly #agent: ConnectedAgent<AgentContract>;
  readonly #notices = new Map<string, BarrierNotices>();

  private constructor(host: string, agent: ConnectedAgent<AgentContract>, log: Logger) {
    this.host = host;
    this.#agent = agent;
    agent.client.onNotification('log', ({ level, message, fields }) =>
      log[level]({ ...fields, host }, message),
    );
    agent.client.onNotification('progress', ({ barrier, step, doneBytes, totalBytes }) =>
      this.#notices.get(barrier)?.progress(step, doneBytes, totalBytes),
    );
    agent.client.onNotification('barrierLost', ({ barrier, reason, code, port }) => {
      const context = { host, ...(port === null ? {} : { port }) };
      const error = new StaghornError(code, `host ${host}: ${reason}`, { context });
      this.#notices.get(barrier)?.trouble({ lost: false, error });
    });
    void agent.client.closed.then((error) => {
      for (const notices of this.#notices.values()) notices.trouble({ lost: true, error });
    });
  }

  /** Logs in, starts the agent and shakes hands. @throws StaghornError as `connectAgent` does, 'version-mismatch' */
  static async open(spec: HostSpec, bundle: readonly BundleFile[], log: Logger): Promise<AgentLink> {
    const { name: host, ssh = host, sshConfig: configFile, user, port } = spec;
    const target = { host: ssh, configFile, user, port };
    try {
      const agent = await connectAgent(agentContract, target, { files: bundle });
      const link = new AgentLink(host, agent, log);
      await link.#greet(log).catch(async (error: unknown) => {
        await link.close();
        throw error;
      });
      return link;
    } catch (error) {
      throw withHost(host, error);
    }
  }

  async #greet(log: Logger): Promise<void> {
    const { host } = this;
    const params = { protocolVersion, controllerVersion: version, host };
    const hello = await this.call('hello', params, helloTimeoutMs);
    log.info({ ...hello, host }, 'agent connected');
  }

  get isOpen(): boolean {
    return !this.#agent.client.closedSignal.aborted;
  }

  async call<M extends AgentMethod>(
    method: M,
    params: AgentParams<M>,
    timeoutMs: number,
    signal?: AbortSignal,
  ): Promise<AgentResult<M>> {
    try {
      return await this.#agent.client.call(method, params, { timeoutMs, signal });
    } catch (error) {
      throw withHost(this.host, error);
    }
  }

  /** A process of the agent that streams bytes, beside the calls. @throws StaghornError 'host-unreachable' */
  async runBeside(args: readonly string[]): Promise<RemoteProcess> {
    return this.#agent.runBeside(args);
  }

  async measureClock(): Promise<ClockOffset> {
    const exchanges: ClockExchange[] = [];
    for (let i = 0; i < clockExchanges; i++) {
      const sentAtNs = process.hrtime.bigint();
      const { monotonicNs } = await this.call('clock', {}, clockTimeoutMs);
      exchanges.push({ sentAtNs, hostNs: monotonicNs, receivedAtNs: process.hrtime.bigint() });
    }
    return clockOffset(exchanges);
  }

  /** Listens to what concerns one barrier; returns how to stop. */
  listen(barrier: string, notices: BarrierNotices): () => void {
    this.#notices.set(barrier, notices);
    return () => this.#notices.delete(barrier);
  }

  async close(): Promise<void> {
    await this.#agent.close();
  }
}

/** The same error, saying on which host of the experiment it happened. */
export function withHost(host: string, error: unknown): StaghornError {
  if (!(error instanceof StaghornError)) {
    return new StaghornError('internal', `host ${host}: ${messageOf(error)}`, {
      cause: error,
      context: { host },
    });
  }
  const text = error.message.includes(host) ? error.message : `host ${host}: ${error.message}`;
  return new StaghornError(error.code, text, { cause: error.cause, context: { ...error.context, host } });
}
