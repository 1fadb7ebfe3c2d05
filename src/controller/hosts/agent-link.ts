import { messageOf, StaghornError } from '../../errors/index.ts';
import type { Logger } from '../../protocol/logger.ts';
import type { HostSpec, Transport } from '../../protocol/resources.ts';
import {
  agentContract,
  protocolVersion,
  type AgentContract,
  type AgentMethod,
  type AgentParams,
  type AgentResult,
} from '../../protocol/rpc.ts';
import { version } from '../../protocol/version.ts';
import { every, type Time } from '../../protocol/time.ts';
import {
  connectAgent,
  type BrokerAgents,
  type BundleFile,
  type RemoteProcess,
  type RpcClient,
} from '../../transport/index.ts';
import { exchangesOf, HostClock, type MeasuredClock } from './clock-offset.ts';

const helloTimeoutMs = 90_000;
const clockTimeoutMs = 5_000;
/** Between barriers, so that a slow exchange before one does not count. */
const clockRefreshMs = 10_000;

/** A connection to an agent, whatever carries it. */
export interface AgentConnection {
  readonly client: RpcClient<AgentContract>;
  /** Another process of the agent, that streams bytes; where the carrier has that (SSH). */
  runBeside?(args: readonly string[]): Promise<RemoteProcess>;
  close(): Promise<void>;
}

/** Brings up the agent of a host. */
export type AgentConnector = (spec: HostSpec) => Promise<AgentConnection>;

export type AgentConnectors = Readonly<Record<Transport, AgentConnector>>;

/** Over SSH, by which the agent is brought to the host, too. */
export function sshConnector(files: readonly BundleFile[]): AgentConnector {
  return ({ name, ssh = name, sshConfig: configFile, user, port }) =>
    connectAgent(agentContract, { host: ssh, configFile, user, port }, { files });
}

/** Over the site's broker, to which its agents have connected. @throws StaghornError 'invalid-input' without one */
export function brokerConnector(broker: BrokerAgents | null): AgentConnector {
  return ({ name, agent = name }) => {
    if (broker !== null) return broker.connect(agentContract, agent);
    const text = 'its experiment has transport: amqp, and the server was started without --broker';
    return Promise.reject(new StaghornError('invalid-input', text));
  };
}

export interface LinkTools {
  readonly log: Logger;
  readonly time: Time;
}

export interface BarrierNotices {
  progress(step: string, doneBytes: number, totalBytes: number): void;
  /** The agent is gone (lost) or has ended the barrier by itself. */
  trouble(trouble: { lost: boolean; error: StaghornError }): void;
}

/** The connection to the agent of one host. Once `isOpen` is false it stays so: a new link takes its place. */
export class AgentLink {
  readonly host: string;
  readonly time: Time;
  readonly #agent: AgentConnection;
  readonly #clock = new HostClock();
  readonly #endRefresh: () => void;
  readonly #notices = new Map<string, BarrierNotices>();

  private constructor(host: string, agent: AgentConnection, { log, time }: LinkTools) {
    this.host = host;
    this.time = time;
    this.#agent = agent;
    // A failure needs no answer: the end of the connection is reported on its own.
    this.#endRefresh = every(time, clockRefreshMs, () => void this.#exchange().catch(() => undefined));
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
      this.#endRefresh();
      for (const notices of this.#notices.values()) notices.trouble({ lost: true, error });
    });
  }

  /** Connects and shakes hands. @throws StaghornError as the connector does, 'version-mismatch' */
  static async open(spec: HostSpec, connect: AgentConnector, tools: LinkTools): Promise<AgentLink> {
    const host = spec.name;
    try {
      const link = new AgentLink(host, await connect(spec), tools);
      await link.#greet(tools.log).catch(async (error: unknown) => {
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

  /** A process of the agent that streams bytes, beside the calls. @throws StaghornError 'host-unreachable', 'host-unfit' */
  async runBeside(args: readonly string[]): Promise<RemoteProcess> {
    if (this.#agent.runBeside === undefined)
      throw new StaghornError('host-unfit', `host ${this.host}: files are copied over SSH only`);
    return this.#agent.runBeside(args);
  }

  /** By exchanges one after another, so many at most, until one is as quick as those that are remembered. */
  async measureClock(exchangesMax: number): Promise<MeasuredClock> {
    for (let i = 0; i < exchangesMax; i++) {
      await this.#exchange();
      if (this.#clock.wasQuick) break;
    }
    return this.#clock.at(this.time.nowNs(), exchangesMax);
  }

  /** From the exchanges that there were anyhow, if one of them is fresh. */
  async knownClock(): Promise<MeasuredClock> {
    const nowNs = this.time.nowNs();
    return this.#clock.isFresh(nowNs) ? this.#clock.at(nowNs) : this.measureClock(exchangesOf(1));
  }

  async #exchange(): Promise<void> {
    const sentAtNs = this.time.nowNs();
    const { monotonicNs: hostNs, utc } = await this.call('clock', {}, clockTimeoutMs);
    this.#clock.add({ sentAtNs, hostNs, utc, receivedAtNs: this.time.nowNs() });
  }

  /** Listens to what concerns one barrier; returns how to stop. */
  listen(barrier: string, notices: BarrierNotices): () => void {
    this.#notices.set(barrier, notices);
    return () => this.#notices.delete(barrier);
  }

  async close(): Promise<void> {
    this.#endRefresh();
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
