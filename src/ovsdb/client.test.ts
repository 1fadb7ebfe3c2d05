import { setImmediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { OvsdbClient } from './client.ts';
import type { OvsdbOptions } from './client.ts';
import { maxHeldUpdates } from './monitor.ts';
import type { OvsdbTableUpdates } from './operations.ts';
import { readSwitches } from './open-vswitch.ts';
import type { Transport, TransportHandlers } from './transport.ts';

interface Call {
  readonly method: string;
  readonly params: unknown[];
  readonly id: string;
}

/** The other side of a connection, in memory; what it says is up to the test. */
class FakeServer implements Transport {
  readonly calls: Call[] = [];
  #handlers: TransportHandlers | undefined;
  #closed = false;

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
  }

  write(bytes: Uint8Array): void {
    this.calls.push(JSON.parse(Buffer.from(bytes).toString()) as Call);
  }

  /** Sends all of these in one chunk. */
  send(...messages: object[]): void {
    this.#handlers?.onData(Buffer.from(messages.map((message) => JSON.stringify(message)).join('')));
  }

  reply(result: unknown): object {
    return { id: this.calls.at(-1)?.id, result, error: null };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    queueMicrotask(() => this.#handlers?.onClosed(undefined));
  }
}

function connected(options: OvsdbOptions = { inactivityProbeMs: 0 }): {
  server: FakeServer;
  client: OvsdbClient;
} {
  const server = new FakeServer();
  return { server, client: OvsdbClient.over(server, options) };
}

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;
const select = { op: 'select', table: 'T', where: [] } as const;

describe('OvsdbClient', () => {
  it('hands updates over only after the initial state, even if they stand in the same chunk', async () => {
    const { server, client } = connected();
    const seen: string[] = [];
    const starting = client.monitor('db', { T: {} }, () => seen.push('update'));
    const update = { method: 'update', params: [server.calls[0]?.params[1], { T: {} }], id: null };
    server.send(server.reply({}), update, update);
    await starting;
    seen.push('initial');
    await setImmediate();
    server.send(update);
    expect(seen).toEqual(['initial', 'update', 'update', 'update']);
  });

  it('gives up a server that sends updates without end for a monitor that it has not agreed to', async () => {
    const { server, client } = connected();
    const starting = client.monitor('db', { T: {} }, () => undefined);
    const update = { method: 'update', params: [server.calls[0]?.params[1], { T: {} }], id: null };
    for (let count = 0; count <= maxHeldUpdates; count += 1) server.send(update);
    await expect(starting).rejects.toEqual(withCode('protocol'));
    await expect(client.closed).resolves.toEqual(withCode('protocol'));
  });

  it('calls a monitor no more from the moment it is cancelled', async () => {
    const { server, client } = connected();
    const updates: OvsdbTableUpdates[] = [];
    const starting = client.monitor('db', { T: {} }, (changes) => updates.push(changes));
    const monitorId = server.calls[0]?.params[1];
    server.send(server.reply({ T: {} }));
    const monitor = await starting;
    const cancelled = monitor.cancel();
    server.send({ method: 'update', params: [monitorId, { T: {} }], id: null }, server.reply({}));
    await cancelled;
    await monitor.cancel();
    await setImmediate();
    expect(updates).toEqual([]);
    expect(server.calls.map(({ method }) => method)).toEqual(['monitor', 'monitor_cancel']);
  });

  it('tells which operation of a transaction failed, and a failed commit from those', async () => {
    const { server, client } = connected();
    const failing = client.transact('db', [select, select]);
    server.send(server.reply([{ rows: [] }, { error: 'constraint violation', details: 'why' }]));
    await expect(failing).rejects.toMatchObject({
      code: 'operation-failed',
      failure: { error: 'constraint violation', details: 'why', operationIndex: 1 },
    });
    const uncommitted = client.transact('db', [select]);
    server.send(server.reply([{ rows: [] }, { error: 'referential integrity violation' }]));
    await expect(uncommitted).rejects.toMatchObject({
      message: expect.stringMatching(/^commit:/) as string,
      failure: { operationIndex: 1 },
    });
  });

  it('refuses replies that do not fit the request', async () => {
    const { server, client } = connected();
    const asked = [client.transact('db', [select]), client.listDbs(), client.getSchema('db')];
    for (const { id } of server.calls) server.send({ id, result: [1, 2], error: null });
    for (const request of asked) await expect(request).rejects.toEqual(withCode('protocol'));
  });

  it('gives a request up after its time or when the caller aborts, and goes on', async () => {
    const { server, client } = connected();
    await expect(client.echo({ timeoutMs: 5 })).rejects.toEqual(withCode('timeout'));
    const abort = new AbortController();
    const echo = client.echo({ signal: abort.signal });
    abort.abort();
    await expect(echo).rejects.toEqual(withCode('aborted'));
    await expect(client.echo({ signal: abort.signal })).rejects.toEqual(withCode('aborted'));
    expect(server.calls).toHaveLength(2);
    const next = client.listDbs();
    for (const { id } of server.calls) server.send({ id, result: ['db'], error: null });
    await expect(next).resolves.toEqual(['db']);
  });

  it('asks a silent server for an echo, and gives it up when that stays unanswered', async () => {
    const { server, client } = connected({ inactivityProbeMs: 5 });
    const pending = client.listDbs();
    await expect(client.closed).resolves.toEqual(withCode('inactive'));
    await expect(pending).rejects.toEqual(withCode('inactive'));
    expect(server.calls.map(({ method }) => method)).toEqual(['list_dbs', 'echo']);
  });

  it('fails all that is pending when the peer sends nonsense', async () => {
    const { server, client } = connected();
    const pending = client.listDbs();
    server.send({ nonsense: true });
    await expect(pending).rejects.toEqual(withCode('protocol'));
    await expect(client.closed).resolves.toEqual(withCode('protocol'));
    await expect(client.echo()).rejects.toEqual(withCode('protocol'));
  });

  it('fails what is pending as disconnected when it is closed, which is no failure of the connection', async () => {
    const { client } = connected();
    const pending = client.listDbs();
    await Promise.all([client.close(), expect(pending).rejects.toEqual(withCode('disconnected'))]);
    await expect(client.closed).resolves.toBeUndefined();
  });
});

describe('readSwitches', () => {
  it('refuses a port that is not there', async () => {
    const { server, client } = connected();
    const reading = readSwitches(client);
    const bridge = { _uuid: ['uuid', 'b'], name: 'br0', datapath_type: '', external_ids: ['map', []] };
    const rows = [{ ...bridge, ports: ['uuid', 'gone'] }];
    server.send(server.reply([{ rows: [] }, { rows: [] }, { rows }]));
    await expect(reading).rejects.toMatchObject({ code: 'protocol', message: 'no row has the UUID gone' });
  });
});
