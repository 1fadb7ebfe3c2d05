import { connect } from 'amqplib';
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';

import { brokerVhost } from '../../src/bench/bus/broker-files.ts';
import { OwnBroker } from '../../src/bench/bus/broker.ts';
import { BrokerConnection } from '../../src/transport/amqp-connection.ts';
import { encodeEnvelope, type EnvelopeKind } from '../../src/transport/amqp-envelope.ts';
import { BrokerAgents, type RpcClient } from '../../src/transport/index.ts';
import { readBrokerFile } from '../../src/transport/rpc.ts';
import { encodeFrame } from '../../src/transport/rpc-framing.ts';
import { contract, TestAgent } from './amqp-contract.ts';

const timeoutMs = 30_000;
const patience = { timeout: 60_000, interval: 50 };

describe('the RPC over a message broker', { timeout: 120_000 }, () => {
  let broker: OwnBroker;
  const agents: TestAgent[] = [];
  const controllers: BrokerAgents[] = [];

  beforeAll(async () => {
    broker = await OwnBroker.start();
  }, 300_000);
  afterEach(async () => {
    vi.restoreAllMocks();
    await Promise.all(controllers.splice(0).map((controller) => controller.close()));
    await Promise.all(agents.splice(0).map((agent) => agent.stop()));
  });
  afterAll(() => broker.stop());

  async function agentNamed(name: string, file = broker.fileFor('agent')): Promise<TestAgent> {
    const agent = await TestAgent.start(name, file);
    agents.push(agent);
    return agent;
  }

  async function controllerWith(file = broker.fileFor('controller')): Promise<BrokerAgents> {
    const controller = new BrokerAgents(await readBrokerFile(file));
    controllers.push(controller);
    return controller;
  }

  async function connected(name: string): Promise<{ agent: TestAgent; client: RpcClient<typeof contract> }> {
    const agent = await agentNamed(name);
    const { client } = await (await controllerWith()).connect(contract, name);
    return { agent, client };
  }

  it('carries answers, errors with their context, and messages of many megabytes', async () => {
    const { client } = await connected('h1');
    expect(await client.call('echo', { text: 'hello' }, { timeoutMs })).toBe('hello');
    await expect(client.call('fail', null, { timeoutMs })).rejects.toMatchObject({
      code: 'vm-unfit',
      context: { vm: 'a', host: 'h1' },
    });
    const text = 'x'.repeat(5 * 1024 * 1024 + 1);
    expect(await client.call('echo', { text }, { timeoutMs })).toBe(text);
  });

  it('tells the handler that its call was cancelled, and carries notifications', async () => {
    const { client } = await connected('h1');
    const heard: string[] = [];
    client.onNotification('aborted', ({ why }) => heard.push(why));
    const cancel = new AbortController();
    const waiting = client.call('wait', null, { timeoutMs, signal: cancel.signal });
    await client.call('count', null, { timeoutMs });
    cancel.abort();
    await expect(waiting).rejects.toMatchObject({ code: 'cancelled' });
    await vi.waitFor(() => expect(heard).toEqual(['cancelled']), patience);
  });

  it('publishes one message for equal calls of one turn, which reaches every agent', async () => {
    const names = ['h1', 'h2', 'h3'];
    const served = await Promise.all(names.map((name) => agentNamed(name)));
    const controller = await controllerWith();
    const clients = await Promise.all(names.map((name) => controller.connect(contract, name)));
    // Ids of requests differ from client to client; on the wire they must not.
    await clients[0]!.client.call('count', null, { timeoutMs });
    const publish = vi.spyOn(BrokerConnection.prototype, 'publish');
    await Promise.all(clients.map(({ client }) => client.call('count', null, { timeoutMs })));
    const toAgents = publish.mock.calls.filter(([targets]) => names.includes(targets[0]!));
    const carrying = toAgents.filter(([, { kind }]) => kind === 'bytes').map(([targets]) => [...targets]);
    expect(carrying).toEqual([names]);
    expect(served.map(({ calls }) => calls)).toEqual([2, 1, 1]);
  });

  it('keeps two sessions of one controller with one agent apart', async () => {
    const agent = await agentNamed('h1');
    const controller = await controllerWith();
    const first = await controller.connect(contract, 'h1');
    const second = await controller.connect(contract, 'h1');
    await first.close();
    await vi.waitFor(() => expect(agent.ends).toHaveLength(1), patience);
    expect(await second.client.call('echo', { text: 'still here' }, { timeoutMs })).toBe('still here');
    expect(agent.sessions).toBe(2);
  });

  it('says that no agent of that name is connected', async () => {
    const controller = await controllerWith();
    await expect(controller.connect(contract, 'nobody', { timeoutMs: 1000 })).rejects.toMatchObject({
      code: 'host-unreachable',
      message: expect.stringContaining('no agent named nobody') as string,
    });
  });

  it('executes a request once, however often its message comes', async () => {
    const agent = await agentNamed('h1');
    await vi.waitFor(() => expect(agent.connections).toBe(1), patience);
    const raw = await RawController.connect(broker);
    onTestFinished(() => raw.close());
    raw.send('open', 1);
    raw.send('bytes', 2, { jsonrpc: '2.0', id: 1, method: 'count', params: [null] });
    raw.send('bytes', 2, { jsonrpc: '2.0', id: 1, method: 'count', params: [null] });
    raw.send('bytes', 1, { jsonrpc: '2.0', id: 2, method: 'count', params: [null] });
    raw.send('bytes', 3, { jsonrpc: '2.0', id: 3, method: 'echo', params: { text: 'last' } });
    await vi.waitFor(() => expect(raw.received).toContain('"last"'), patience);
    expect(agent.calls).toBe(1);
  });

  it('ends a session of an agent that was started anew', async () => {
    const { agent, client } = await connected('h1');
    agents.splice(agents.indexOf(agent), 1);
    await agent.stop();
    const next = await agentNamed('h1');
    await vi.waitFor(() => expect(next.connections).toBe(1), patience);
    expect(await client.closed).toMatchObject({ code: 'agent-lost', context: { host: 'h1' } });
    await expect(client.call('count', null, { timeoutMs })).rejects.toMatchObject({ code: 'agent-lost' });
    expect(next.calls).toBe(0);
  });

  it('lets an agent know that its controller is gone', async () => {
    const { agent, client } = await connected('h1');
    const refused = expect(client.call('wait', null, { timeoutMs })).rejects.toMatchObject({
      code: 'cancelled',
    });
    const [controller] = controllers.splice(0);
    await controller!.close();
    await refused;
    await vi.waitFor(() => expect(agent.ends).toMatchObject([{ code: 'agent-lost' }]), patience);
  });

  it('refuses a second agent of a name, which tries again', async () => {
    const first = await agentNamed('h1');
    await vi.waitFor(() => expect(first.connections).toBe(1), patience);
    const second = await agentNamed('h1');
    await vi.waitFor(() => expect(second.troubles.at(0)).toMatchObject({ code: 'conflict' }), patience);
    agents.splice(agents.indexOf(first), 1);
    await first.stop();
    await vi.waitFor(() => expect(second.connections).toBe(1), patience);
  });

  it('ends every session when the broker is killed, and comes back with it', async () => {
    const { agent, client } = await connected('h1');
    const lost = expect(client.call('wait', null, { timeoutMs })).rejects.toMatchObject({
      code: 'agent-lost',
      message: expect.stringContaining('the connection to the broker') as string,
    });
    await client.call('count', null, { timeoutMs });
    await broker.kill();
    await lost;
    await vi.waitFor(() => expect(agent.ends).toMatchObject([{ code: 'agent-lost' }]), patience);
    await broker.run();
    const again = await controllers[0]!.connect(contract, 'h1', { timeoutMs });
    expect(await again.client.call('count', null, { timeoutMs })).toBe(2);
  });

  it('ends every session when the wire to the broker is cut, and comes back with it', async () => {
    const { agent, client } = await connected('h1');
    broker.setReachable(false);
    onTestFinished(() => broker.setReachable(true));
    expect(await client.closed).toMatchObject({ code: 'agent-lost' });
    await vi.waitFor(() => expect(agent.ends).toMatchObject([{ code: 'agent-lost' }]), patience);
    broker.setReachable(true);
    const again = await controllers[0]!.connect(contract, 'h1', { timeoutMs: 60_000 });
    expect(await again.client.call('echo', { text: 'back' }, { timeoutMs })).toBe('back');
  });

  it('goes through TLS to a broker whose authority the broker file names', async () => {
    await agentNamed('h1', broker.fileFor('agent', { tls: true, name: 'agent-tls' }));
    const controller = await controllerWith(
      broker.fileFor('controller', { tls: true, name: 'controller-tls' }),
    );
    const { client } = await controller.connect(contract, 'h1');
    expect(await client.call('echo', { text: 'sealed' }, { timeoutMs })).toBe('sealed');
  });

  it('trusts no broker whose authority is unknown', async () => {
    const settings = await readBrokerFile(broker.fileFor('controller', { tls: true, name: 'distrust' }));
    const controller = new BrokerAgents({ ...settings, ca: undefined });
    controllers.push(controller);
    await expect(controller.connect(contract, 'h1')).rejects.toMatchObject({
      code: 'host-unreachable',
      message: expect.stringMatching(/certificate/) as string,
    });
  });

  it('says that the broker refuses the password', async () => {
    const controller = await controllerWith(
      broker.fileFor('controller', { password: 'wrong', name: 'wrong' }),
    );
    await expect(controller.connect(contract, 'h1')).rejects.toMatchObject({
      code: 'authentication-failed',
      message: expect.stringContaining('user controller') as string,
    });
  });

  it('gives agents no permission to speak to agents', async () => {
    const agent = await agentNamed('h1');
    await vi.waitFor(() => expect(agent.connections).toBe(1), patience);
    const other = await controllerWith(broker.fileFor('agent', { name: 'agent-as-controller' }));
    await expect(other.connect(contract, 'h1')).rejects.toMatchObject({ code: 'authentication-failed' });
  });
});

/** Somebody who publishes what he likes with a controller's permissions. */
class RawController {
  readonly #model: Awaited<ReturnType<typeof connect>>;
  readonly #channel: Awaited<ReturnType<Awaited<ReturnType<typeof connect>>['createChannel']>>;
  received = '';

  private constructor(
    model: Awaited<ReturnType<typeof connect>>,
    channel: Awaited<ReturnType<Awaited<ReturnType<typeof connect>>['createChannel']>>,
  ) {
    this.#model = model;
    this.#channel = channel;
  }

  static async connect({ address, passwords }: OwnBroker): Promise<RawController> {
    const model = await connect(`amqp://controller:${passwords.controller}@${address}/${brokerVhost}`);
    const channel = await model.createChannel();
    const raw = new RawController(model, channel);
    await channel.assertQueue('staghorn.controllers.raw', { exclusive: true });
    await channel.bindQueue('staghorn.controllers.raw', 'staghorn.controllers', 'raw');
    await channel.consume(
      'staghorn.controllers.raw',
      (message) => (raw.received += message?.content.toString()),
    );
    return raw;
  }

  send(kind: EnvelopeKind, number: number, message?: object): void {
    const body = message === undefined ? Buffer.alloc(0) : encodeFrame(message, 1024);
    const properties = encodeEnvelope({ kind, number, slot: 0, epoch: 0, from: 'raw', body });
    this.#channel.publish('staghorn.agents', 'h1', body, { ...properties });
  }

  close(): Promise<void> {
    return this.#model.close();
  }
}
