import { asStaghornError, StaghornError } from '../errors/index.ts';
import type { AgentContract } from '../protocol/rpc.ts';
import type { Time } from '../protocol/time.ts';
import type { CallOptions, RpcClient, RpcHandlers } from '../transport/rpc.ts';
import type { Random } from './random.ts';
import type { ProcessTime } from './virtual-time.ts';

/** What a network does to messages; changed while it runs. */
export interface NetworkTemper {
  delayMs: number;
  jitterMs: number;
  /** Of calls, answers and cancellations. A notification is lost only with its connection, as over any stream. */
  lossRate: number;
  /** Of calls and answers: a broker may deliver again what was not acknowledged. */
  duplicationRate: number;
}

export interface ConnectionParts {
  readonly host: string;
  /** Of the network, which has no clock that could be wrong. */
  readonly time: Time;
  readonly controllerTime: ProcessTime;
  readonly agentTime: ProcessTime;
  readonly random: Random;
  readonly temper: NetworkTemper;
  readonly handlers: RpcHandlers<AgentContract>;
  /** The agent notices that its input has ended. */
  readonly onAgentInputEnd: () => void;
  /** Told of every message when it arrives, before it is acted on. */
  readonly onMessage: (text: string) => void;
}

type Handler = (params: unknown, context: { signal: AbortSignal }) => unknown;
interface Pending {
  readonly method: string;
  readonly settle: (outcome: Outcome) => void;
}
type Outcome = { readonly result: unknown } | { readonly error: StaghornError };

/**
 * An RPC connection between a controller and an agent that may die, through a network that may be bad: in order, as
 * a stream is, but with losses, repetitions and silence. It carries values and no bytes: the codec has tests of its own.
 */
export class SimulatedConnection {
  readonly #parts: ConnectionParts;
  readonly #pending = new Map<number, Pending>();
  readonly #running = new Map<number, AbortController>();
  readonly #listeners = new Map<string, (params: never) => void>();
  readonly #closing = new AbortController();
  readonly #closed: Promise<StaghornError>;
  /** When the last message of each direction arrives: the next one is not before it. */
  readonly #lastNs = { call: 0n, answer: 0n };
  #silent = false;
  #ids = 0;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    this.#closed = new Promise((resolve) => {
      const { signal } = this.#closing;
      signal.addEventListener('abort', () => resolve(signal.reason as StaghornError));
    });
    this.client = this.#makeClient();
  }

  get isOpen(): boolean {
    return !this.#closing.signal.aborted;
  }

  /** What the controller has of it. */
  readonly client: RpcClient<AgentContract>;

  /** What the agent says unasked. */
  notify(name: string, params: unknown): void {
    this.#deliver('answer', `${name} from ${this.#parts.host}`, () =>
      this.#listeners.get(name)?.(params as never),
    );
  }

  /** From now on nothing arrives, and nobody is told. */
  fallSilent(): void {
    this.#silent = true;
  }

  /** Both ends learn, each in its own time, that there is no connection any more. */
  break(reason: string): void {
    const { controllerTime, agentTime, random, temper, host, onAgentInputEnd } = this.#parts;
    this.#silent = true;
    const lost = new StaghornError('agent-lost', `host ${host}: ${reason}`, { context: { host } });
    controllerTime.after(random.delay(temper.delayMs), () => this.#end(lost));
    agentTime.after(random.delay(temper.delayMs), onAgentInputEnd);
  }

  #makeClient(): RpcClient<AgentContract> {
    const client = {
      call: (method: string, params: unknown, options: CallOptions) => this.#call(method, params, options),
      onNotification: (name: string, handler: (params: never) => void) => {
        this.#listeners.set(name, handler);
        return () => this.#listeners.delete(name);
      },
      closed: this.#closed,
      closedSignal: this.#closing.signal,
      close: () => this.break('closed'),
    };
    return client as unknown as RpcClient<AgentContract>;
  }

  #call(method: string, params: unknown, { timeoutMs, signal }: CallOptions): Promise<unknown> {
    if (signal?.aborted) return Promise.reject(asStaghornError(signal.reason));
    if (!this.isOpen) return Promise.reject(asStaghornError(this.#closing.signal.reason));
    const id = this.#ids++;
    const { controllerTime, host } = this.#parts;
    return new Promise((resolve, reject) => {
      const giveUp = (error: StaghornError) => {
        this.#pending.get(id)?.settle({ error });
        this.#send('call', `cancel of ${method} to ${host}`, () => this.#running.get(id)?.abort(error));
      };
      const onAbort = () => giveUp(asStaghornError(signal?.reason));
      const cancelTimer = controllerTime.after(timeoutMs, () => {
        giveUp(new StaghornError('deadline-exceeded', `${method} was not answered within ${timeoutMs} ms`));
      });
      signal?.addEventListener('abort', onAbort, { once: true });
      const settle = (outcome: Outcome) => {
        this.#pending.delete(id);
        cancelTimer();
        signal?.removeEventListener('abort', onAbort);
        if ('error' in outcome) reject(outcome.error);
        else resolve(outcome.result);
      };
      this.#pending.set(id, { method, settle });
      this.#send('call', `${method} to ${host}`, () => void this.#answer(id, method, params));
    });
  }

  async #answer(id: number, method: string, params: unknown): Promise<void> {
    const running = new AbortController();
    this.#running.set(id, running);
    const { handlers, host } = this.#parts;
    const handler = handlers[method as keyof typeof handlers] as Handler;
    let outcome: Outcome;
    try {
      outcome = { result: await handler(params, { signal: running.signal }) };
    } catch (error) {
      outcome = { error: asStaghornError(error) };
    }
    const text = `${'error' in outcome ? `error (${outcome.error.message})` : 'answer'} of ${method} from ${host}`;
    this.#send('answer', text, () => this.#pending.get(id)?.settle(outcome));
  }

  #send(direction: 'call' | 'answer', text: string, arrive: () => void): void {
    const { random, temper } = this.#parts;
    if (random.chance(temper.lossRate)) return;
    this.#deliver(direction, text, arrive);
    if (random.chance(temper.duplicationRate)) this.#deliver(direction, `${text}, again`, arrive);
  }

  #deliver(direction: 'call' | 'answer', text: string, arrive: () => void): void {
    const { random, temper, time, controllerTime, agentTime, onMessage } = this.#parts;
    const receiver = direction === 'call' ? agentTime : controllerTime;
    const sentNs = time.nowNs();
    const delayNs = BigInt(Math.round((temper.delayMs + random.delay(temper.jitterMs)) * 1e6));
    const atNs = sentNs + delayNs > this.#lastNs[direction] ? sentNs + delayNs : this.#lastNs[direction];
    this.#lastNs[direction] = atNs;
    time.after(Number(atNs - sentNs) / 1e6, () => {
      if (this.#silent || receiver.isKilled) return;
      onMessage(text);
      arrive();
    });
  }

  #end(reason: StaghornError): void {
    if (!this.isOpen) return;
    this.#closing.abort(reason);
    for (const { settle } of [...this.#pending.values()]) settle({ error: reason });
  }
}
