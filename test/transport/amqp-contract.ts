import { once } from 'node:events';
import { z } from 'zod';

import { StaghornError } from '../../src/errors/index.ts';
import {
  defineContract,
  readBrokerFile,
  serveAtBroker,
  serveRpc,
  type RpcServer,
} from '../../src/transport/rpc.ts';

export const contract = defineContract({
  methods: {
    echo: { params: z.strictObject({ text: z.string() }), result: z.string() },
    count: { params: z.null(), result: z.int() },
    wait: { params: z.null(), result: z.null() },
    fail: { params: z.null(), result: z.null() },
  },
  notifications: { aborted: { params: z.strictObject({ why: z.string() }) } },
});

/** An agent at a broker, in this process. */
export class TestAgent {
  readonly troubles: StaghornError[] = [];
  /** How often `count` was called. */
  calls = 0;
  sessions = 0;
  connections = 0;
  /** Of the sessions that are over: why. */
  readonly ends: StaghornError[] = [];
  readonly #stop = new AbortController();
  #over: Promise<void> = Promise.resolve();

  static async start(name: string, brokerFile: string): Promise<TestAgent> {
    const agent = new TestAgent();
    const settings = await readBrokerFile(brokerFile);
    agent.#over = serveAtBroker({
      settings,
      name,
      signal: agent.#stop.signal,
      onConnected: () => (agent.connections += 1),
      onTrouble: (error) => agent.troubles.push(error),
      serve: async (connection) => {
        agent.sessions += 1;
        const server: RpcServer<typeof contract> = serveRpc(
          contract,
          agent.#handlers(() => server),
          connection,
        );
        agent.ends.push(await server.closed);
      },
    });
    return agent;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#over;
  }

  #handlers(server: () => RpcServer<typeof contract>) {
    return {
      echo: ({ text }: { text: string }) => text,
      count: () => (this.calls += 1),
      wait: async (_params: null, { signal }: { signal: AbortSignal }) => {
        await once(signal, 'abort');
        const why = (signal.reason as StaghornError).code;
        await server()
          .notify('aborted', { why })
          .catch(() => undefined);
        return null;
      },
      fail: () => {
        throw new StaghornError('vm-unfit', 'VM a has no QMP socket', { context: { vm: 'a' } });
      },
    };
  }
}
