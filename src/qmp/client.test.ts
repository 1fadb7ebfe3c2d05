import { describe, expect, it, vi } from 'vitest';
import { QmpClient } from './client.ts';
import { isEvent } from './events.ts';
import type { Transport, TransportHandlers } from './transport.ts';

const GREETING =
  '{"QMP":{"version":{"qemu":{"micro":0,"minor":2,"major":7},"package":""},"capabilities":["oob"]}}\r\n';

/** The other side of a connection, in memory; it greets and agrees by itself, the rest is up to the test. */
class FakeQemu implements Transport {
  readonly fd = 42;
  readonly unwrittenBytes = 0;
  readonly written: { execute: string; id: string }[] = [];
  #handlers: TransportHandlers | undefined;
  #closed = false;

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
    this.send(GREETING);
  }

  leaveAlone(): () => void {
    return () => undefined;
  }

  write(bytes: Uint8Array): void {
    const message = JSON.parse(Buffer.from(bytes).toString()) as { execute: string; id: string };
    if (message.execute === 'qmp_capabilities') this.send(`{"return":{},"id":"${message.id}"}\n`);
    else this.written.push(message);
  }

  send(text: string): void {
    this.#handlers?.onData(Buffer.from(text));
  }

  event(name: string, microseconds: number): void {
    this.send(`{"event":"${name}","timestamp":{"seconds":1,"microseconds":${microseconds}}}\n`);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    queueMicrotask(() => this.#handlers?.onClosed(undefined));
  }
}

async function connected(): Promise<{ qemu: FakeQemu; client: QmpClient }> {
  const qemu = new FakeQemu();
  return { qemu, client: await QmpClient.over(qemu) };
}

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;

describe('QmpClient', () => {
  it('gives the greeting and the descriptor once it is ready', async () => {
    const { client } = await connected();
    expect(client.greeting.version).toEqual({ major: 7, minor: 2, micro: 0 });
    expect(client.fd).toBe(42);
  });

  it('writes nothing for a prepared command, and still takes its reply', async () => {
    const { qemu, client } = await connected();
    const prepared = client.prepare('query-status');
    expect(qemu.written).toEqual([]);
    const { id } = JSON.parse(prepared.bytes.toString()) as { id: string };
    qemu.send(`{"return":{"running":true,"status":"running"},"id":"${id}"}\n`);
    await expect(prepared.reply).resolves.toEqual({ running: true, status: 'running' });
  });

  it('fails a cancelled command at once and ignores its reply', async () => {
    const { qemu, client } = await connected();
    const prepared = client.prepare('stop');
    prepared.cancel();
    await expect(prepared.reply).rejects.toEqual(withCode('aborted'));
    const { id } = JSON.parse(prepared.bytes.toString()) as { id: string };
    qemu.send(`{"return":{},"id":"${id}"}\n`);
    expect(await Promise.race([client.closed, Promise.resolve('open')])).toBe('open');
  });

  it('gives a silent command up after its time, and goes on', async () => {
    const { qemu, client } = await connected();
    await expect(client.execute('stop', undefined, { timeoutMs: 5 })).rejects.toEqual(withCode('timeout'));
    const next = client.execute('cont');
    qemu.send(
      `{"return":{},"id":"${qemu.written[0]?.id ?? ''}"}\n{"return":{},"id":"${qemu.written[1]?.id ?? ''}"}\n`,
    );
    await expect(next).resolves.toEqual({});
  });

  it('gives a command up when the caller aborts, and writes none for a caller who has', async () => {
    const { qemu, client } = await connected();
    const abort = new AbortController();
    const reply = client.execute('stop', undefined, { signal: abort.signal });
    abort.abort(new Error('enough'));
    await expect(reply).rejects.toMatchObject({ code: 'aborted', cause: { message: 'enough' } });
    await expect(client.execute('cont', undefined, { signal: abort.signal })).rejects.toEqual(
      withCode('aborted'),
    );
    expect(qemu.written.map(({ execute }) => execute)).toEqual(['stop']);
    await expect(client.waitEvent('STOP', { signal: abort.signal })).rejects.toEqual(withCode('aborted'));
  });

  it('hands an event that comes before its wait is looked at, and before the reply', async () => {
    const { qemu, client } = await connected();
    const stopped = client.waitEvent('STOP');
    qemu.event('STOP', 7);
    qemu.event('STOP', 8);
    await expect(stopped).resolves.toMatchObject({ name: 'STOP', timestampNs: 1_000_007_000n });
  });

  it('finds events of the past from a given instant on, and waits for those that are still to come', async () => {
    const { qemu, client } = await connected();
    qemu.event('STOP', 1);
    qemu.event('STOP', 2);
    await expect(client.waitEvent('STOP', { since: 1_000_002_000n })).resolves.toMatchObject({
      timestampNs: 1_000_002_000n,
    });
    await expect(client.waitEvent('STOP', { since: 1_000_002_001n, timeoutMs: 5 })).rejects.toEqual(
      withCode('timeout'),
    );
    const third = client.waitEvent('STOP', { since: 1_000_002_001n });
    qemu.event('STOP', 3);
    await expect(third).resolves.toMatchObject({ timestampNs: 1_000_003_000n });
  });

  it('waits for the event that a condition holds for', async () => {
    const { qemu, client } = await connected();
    const completed = client.waitEvent('MIGRATION', { where: ({ data }) => data.status === 'completed' });
    for (const status of ['setup', 'active', 'completed']) {
      qemu.send(
        `{"event":"MIGRATION","data":{"status":"${status}"},"timestamp":{"seconds":1,"microseconds":0}}\n`,
      );
    }
    expect((await completed).data.status).toBe('completed');
  });

  it('calls listeners in order until they are taken off', async () => {
    const { qemu, client } = await connected();
    const listener = vi.fn();
    const off = client.onEvent(listener);
    qemu.event('STOP', 1);
    qemu.event('RESUME', 2);
    off();
    qemu.event('STOP', 3);
    const events = listener.mock.calls.map(([event]) => event as Parameters<typeof isEvent>[0]);
    expect(events.map(({ name }) => name)).toEqual(['STOP', 'RESUME']);
    expect(events.map((event) => isEvent(event, 'STOP'))).toEqual([true, false]);
  });

  it("takes a listener's exception for a programming error, not for a fault of the connection", async () => {
    const { qemu, client } = await connected();
    const other = await connected();
    await other.client.close();
    client.onEvent(() => {
      other.client.prepare('stop');
    });
    expect(() => {
      qemu.event('STOP', 1);
    }).toThrow(withCode('disconnected'));
    expect(() => client.prepare('stop')).not.toThrow();
  });

  it('fails all that is pending or waited for when the peer sends nonsense', async () => {
    const { qemu, client } = await connected();
    const reply = client.execute('stop');
    const event = client.waitEvent('STOP');
    qemu.send('nonsense\n');
    await expect(reply).rejects.toEqual(withCode('protocol'));
    await expect(event).rejects.toEqual(withCode('protocol'));
    await expect(client.closed).resolves.toEqual(withCode('protocol'));
    await expect(client.waitEvent('STOP')).rejects.toEqual(withCode('protocol'));
    expect(() => client.prepare('stop')).toThrow(withCode('protocol'));
  });

  it('fails what is pending as disconnected when it is closed, which is no failure of the connection', async () => {
    const { client } = await connected();
    const reply = client.prepare('stop').reply;
    await client.close();
    await client.close();
    await expect(reply).rejects.toEqual(withCode('disconnected'));
    await expect(client.closed).resolves.toBeUndefined();
    await expect(client.execute('cont')).rejects.toEqual(withCode('disconnected'));
  });

  it('refuses a message over the limit', async () => {
    const qemu = new FakeQemu();
    const client = await QmpClient.over(qemu, { maxMessageBytes: 200 });
    qemu.send(`{"return":"${'x'.repeat(200)}`);
    await expect(client.closed).resolves.toEqual(withCode('oversize'));
  });
});
