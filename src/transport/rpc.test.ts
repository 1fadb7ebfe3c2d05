import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { StaghornError } from '../errors/index.ts';
import { instantNs } from '../protocol/instant.ts';
import { createRpcClient, type RpcClient } from './rpc-client.ts';
import { defineContract, type RpcHandlers } from './rpc-contract.ts';
import { createInProcessPair, type InProcessOptions } from './rpc-in-process.ts';
import { serveRpc, type RpcServer } from './rpc-server.ts';

const contract = defineContract({
  methods: {
    later: {
      params: z.strictObject({ atNs: instantNs, byNs: z.int() }),
      result: z.strictObject({ atNs: instantNs }),
    },
    echo: { params: z.array(z.string()), result: z.array(z.string()) },
    fail: {
      params: z.strictObject({ how: z.enum(['known', 'unknown', 'large', 'wrong-result']) }),
      result: z.string(),
    },
    wait: { params: z.undefined(), result: z.undefined() },
  },
  notifications: { tick: { params: z.strictObject({ atNs: instantNs }) } },
});
type Contract = typeof contract;

const aborted: unknown[] = [];
const handlers: RpcHandlers<Contract> = {
  later: ({ atNs, byNs }) => ({ atNs: atNs + BigInt(byNs) }),
  echo: (texts) => texts,
  fail: ({ how }) => {
    if (how === 'known')
      throw new StaghornError('vm-failed', 'VM a does not answer', { context: { vm: 'a' } });
    if (how === 'unknown') throw new RangeError('out of range');
    return how === 'large' ? 'x'.repeat(20_000) : (42 as unknown as string);
  },
  wait: async (_params, { signal }) => {
    await once(signal, 'abort');
    aborted.push(signal.reason);
    throw signal.reason;
  },
};

let client: RpcClient<Contract>;
let server: RpcServer<Contract>;
function connect(options: InProcessOptions = { host: 'h1' }) {
  const pair = createInProcessPair(options);
  server = serveRpc(contract, handlers, pair.server);
  client = createRpcClient(contract, pair.client);
  aborted.length = 0;
  return pair;
}
afterEach(() => {
  client.close();
  server.close();
});

const limits = { timeoutMs: 5000 };
const thrown = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable('it should have failed'),
    (error: unknown) => error as StaghornError,
  );

describe('an RPC call', () => {
  it('carries codecs both ways: bigints in memory, strings on the wire', async () => {
    const pair = connect();
    const wire: string[] = [];
    pair.server.readable.on('data', (chunk: Buffer) => wire.push(chunk.toString()));
    expect(await client.call('later', { atNs: 2n ** 62n, byNs: 1 }, limits)).toEqual({
      atNs: 2n ** 62n + 1n,
    });
    expect(wire.join('')).toContain('"atNs":"4611686018427387904"');
    expect(await client.call('echo', ['a', 'b'], limits)).toEqual(['a', 'b']);
    expect(await client.call('echo', [], limits)).toEqual([]);
  });

  it('gives back the code and context of what the handler threw, with the host added', async () => {
    connect();
    const error = await thrown(client.call('fail', { how: 'known' }, limits));
    expect(error).toBeInstanceOf(StaghornError);
    expect(error).toMatchObject({
      code: 'vm-failed',
      message: 'VM a does not answer',
      context: { vm: 'a', host: 'h1' },
    });
    expect((error.cause as Error).stack).toContain('rpc.test.ts');
  });

  it('gives back anything else thrown as internal', async () => {
    connect();
    const error = await thrown(client.call('fail', { how: 'unknown' }, limits));
    expect(error).toMatchObject({ code: 'internal', message: 'out of range', context: { host: 'h1' } });
  });

  it('names method and path when params do not fit, before anything is sent', async () => {
    connect();
    const params = { atNs: 1n, byNs: 1.5 };
    const error = await thrown(client.call('later', params, limits));
    expect(error.code).toBe('protocol-violation');
    expect(error.message).toMatch(/cannot send params of later.*byNs/);
  });

  it('names method and path when the peer has another idea of the params', async () => {
    const other = defineContract({
      methods: { later: { params: z.object({ atNs: z.number() }), result: z.unknown() } },
      notifications: {},
    });
    const pair = createInProcessPair({ host: 'h1' });
    server = serveRpc(contract, handlers, pair.server);
    const stranger = createRpcClient(other, pair.client);
    const error = await thrown(stranger.call('later', { atNs: 1 }, limits));
    expect(error.code).toBe('protocol-violation');
    expect(error.message).toMatch(/received params of later.*atNs.*byNs/);
    expect(error.context).toMatchObject({ host: 'h1' });
    stranger.close();
  });

  it('names method and path when a result does not fit, on either side', async () => {
    connect();
    const sent = await thrown(client.call('fail', { how: 'wrong-result' }, limits));
    expect(sent.message).toMatch(/cannot send result of fail/);
    const other = defineContract({
      methods: { echo: { params: z.array(z.string()), result: z.array(z.number()) } },
      notifications: {},
    });
    const pair = createInProcessPair();
    const mute = serveRpc(contract, handlers, pair.server);
    const stranger = createRpcClient(other, pair.client);
    const received = await thrown(stranger.call('echo', ['x'], limits));
    expect(received.code).toBe('protocol-violation');
    expect(received.message).toMatch(/received result of echo.*0/);
    stranger.close();
    mute.close();
  });

  it('fails as a protocol violation when the peer has no such method', async () => {
    const other = defineContract({
      methods: { nothing: { params: z.null(), result: z.null() } },
      notifications: {},
    });
    const pair = createInProcessPair();
    server = serveRpc(contract, handlers, pair.server);
    const stranger = createRpcClient(other, pair.client);
    const error = await thrown(stranger.call('nothing', null, limits));
    expect(error).toMatchObject({ code: 'protocol-violation' });
    expect(error.message).toContain('nothing');
    stranger.close();
  });

  it('ends at its deadline, and the handler is told', async () => {
    connect();
    const error = await thrown(client.call('wait', undefined, { timeoutMs: 30 }));
    expect(error).toMatchObject({ code: 'deadline-exceeded', context: { host: 'h1' } });
    expect(error.message).toContain('30 ms');
    await expect.poll(() => aborted).toMatchObject([{ code: 'cancelled' }]);
  });

  it('ends when the caller aborts, and the handler is told', async () => {
    connect();
    const stop = new AbortController();
    const call = thrown(client.call('wait', undefined, { ...limits, signal: stop.signal }));
    await client.call('echo', [], limits);
    stop.abort();
    expect((await call).code).toBe('cancelled');
    await expect.poll(() => aborted).toMatchObject([{ code: 'cancelled' }]);
    expect((await thrown(client.call('wait', undefined, { ...limits, signal: stop.signal }))).code).toBe(
      'cancelled',
    );
  });

  it('does not begin when it is cancelled before the peer came to it', async () => {
    connect();
    const stop = new AbortController();
    const call = thrown(client.call('wait', undefined, { ...limits, signal: stop.signal }));
    stop.abort();
    expect((await call).code).toBe('cancelled');
    expect(await client.call('echo', ['after'], limits)).toEqual(['after']);
    client.close();
    await server.closed;
    expect(aborted).toEqual([]);
  });

  it('fails, and only it, when request or answer are over the limit', async () => {
    connect({ host: 'h1', maxMessageBytes: 10_000 });
    const request = await thrown(client.call('echo', ['x'.repeat(20_000)], limits));
    expect(request).toMatchObject({ code: 'protocol-violation', context: { host: 'h1' } });
    expect(request.message).toMatch(/limit is 10000 bytes/);
    const answer = await thrown(client.call('fail', { how: 'large' }, limits));
    expect(answer).toMatchObject({ code: 'protocol-violation', context: { host: 'h1' } });
    expect(await client.call('echo', ['still here'], limits)).toEqual(['still here']);
  });

  it('is refused when too many wait already', async () => {
    connect();
    const calls = Array.from({ length: 1024 }, () => thrown(client.call('wait', undefined, limits)));
    expect((await thrown(client.call('wait', undefined, limits))).code).toBe('conflict');
    client.close();
    expect(new Set((await Promise.all(calls)).map(({ code }) => code))).toEqual(new Set(['cancelled']));
  });
});

describe('an RPC connection', () => {
  it('delivers notifications in order, decoded', async () => {
    connect();
    const ticks: bigint[] = [];
    client.onNotification('tick', ({ atNs }) => ticks.push(atNs));
    await server.notify('tick', { atNs: 1n });
    await server.notify('tick', { atNs: 2n });
    await expect.poll(() => ticks).toEqual([1n, 2n]);
  });

  it('ends with the reason when a notification does not fit', async () => {
    const other = defineContract({
      methods: {},
      notifications: { tick: { params: z.object({ at: z.int() }) } },
    });
    const pair = createInProcessPair({ host: 'h1' });
    client = createRpcClient(contract, pair.client);
    const stranger = serveRpc(other, {}, pair.server);
    await stranger.notify('tick', { at: 1 });
    const reason = await client.closed;
    expect(reason).toMatchObject({ code: 'protocol-violation', context: { host: 'h1' } });
    expect(reason.message).toMatch(/params of tick.*atNs/);
    await stranger.closed;
  });

  it('fails pending and later calls with agent-lost when the peer goes, and aborts the handlers', async () => {
    connect();
    const call = thrown(client.call('wait', undefined, limits));
    const before = await client.call('echo', ['there'], limits);
    expect(before).toEqual(['there']);
    server.close();
    expect(await call).toMatchObject({ code: 'agent-lost', context: { host: 'h1' } });
    expect((await client.closed).code).toBe('agent-lost');
    expect((await thrown(client.call('echo', [], limits))).code).toBe('agent-lost');
    expect(aborted).toHaveLength(1);
  });

  it('aborts running handlers when the client goes', async () => {
    connect();
    const call = thrown(client.call('wait', undefined, limits));
    await client.call('echo', [], limits);
    client.close();
    await server.closed;
    expect((await call).code).toBe('cancelled');
    await expect.poll(() => aborted.length).toBe(1);
    await expect(server.notify('tick', { atNs: 1n })).rejects.toMatchObject({ code: 'agent-lost' });
  });

  it('ends when a peer sends what is no message, quoting it', async () => {
    const pair = createInProcessPair({ host: 'h1' });
    client = createRpcClient(contract, pair.client);
    const call = thrown(client.call('wait', undefined, limits));
    pair.server.writable.write('Segmentation fault\r\n\r\n');
    const reason = await client.closed;
    expect(reason).toMatchObject({ code: 'protocol-violation', context: { host: 'h1' } });
    expect(reason.message).toContain('Segmentation fault');
    expect(await call).toBe(reason);
  });

  it('ends when a peer sends more than the limit', async () => {
    const pair = createInProcessPair({ maxMessageBytes: 1000 });
    client = createRpcClient(contract, pair.client);
    const large = createInProcessPair();
    const talkative = serveRpc(contract, handlers, {
      readable: large.server.readable,
      writable: pair.server.writable,
    });
    const other = createRpcClient(contract, {
      readable: large.client.readable,
      writable: large.client.writable,
    });
    void thrown(other.call('echo', ['y'.repeat(2000)], limits));
    expect(await client.closed).toMatchObject({ code: 'protocol-violation' });
    expect((await client.closed).message).toMatch(/limit is 1000/);
    other.close();
    talkative.close();
  });

  it('gives a peer up that does not read', async () => {
    const pair = createInProcessPair({ host: 'h1', maxMessageBytes: 100_000 });
    client = createRpcClient(contract, pair.client);
    const calls = Array.from({ length: 5 }, () => thrown(client.call('echo', ['z'.repeat(90_000)], limits)));
    const errors = await Promise.all(calls);
    expect(errors[0]).toMatchObject({ code: 'agent-lost', context: { host: 'h1' } });
    expect(errors[0]?.message).toMatch(/does not read/);
  });
});
