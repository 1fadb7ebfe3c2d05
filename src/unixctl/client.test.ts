import { describe, expect, it } from 'vitest';
import type { Transport, TransportHandlers } from '../ovsdb/index.ts';
import { UnixctlClient } from './client.ts';

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;

/** The daemon, in memory; what it says is up to the test. */
class FakeDaemon implements Transport {
  readonly written: unknown[] = [];
  #handlers: TransportHandlers | undefined;

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
  }

  write(bytes: Uint8Array): void {
    this.written.push(JSON.parse(Buffer.from(bytes).toString()));
  }

  say(text: string): void {
    this.#handlers?.onData(Buffer.from(text));
  }

  close(): void {
    this.#handlers?.onClosed(undefined);
    this.#handlers = undefined;
  }
}

describe('UnixctlClient', () => {
  it('sends a command as a JSON-RPC request, and gives the text of its answer', async () => {
    const daemon = new FakeDaemon();
    const client = UnixctlClient.over(daemon);
    const answer = client.run('fdb/show', ['br0']);
    expect(daemon.written).toEqual([{ id: '1', method: 'fdb/show', params: ['br0'] }]);
    daemon.say('{"id":"1","error":null,');
    daemon.say('"result":"{ a } \\"text\\"\\n"}');
    expect(await answer).toBe('{ a } "text"\n');
    await client.close();
  });

  it('gives each of several pending commands its own answer', async () => {
    const daemon = new FakeDaemon();
    const client = UnixctlClient.over(daemon);
    const answers = Promise.all([client.run('a'), client.run('b')]);
    daemon.say('{"id":"2","error":null,"result":"second"}{"id":"1","error":null,"result":"first"}');
    expect(await answers).toEqual(['first', 'second']);
    await client.close();
  });

  it("fails with the daemon's own words when it refuses a command, and goes on", async () => {
    const daemon = new FakeDaemon();
    const client = UnixctlClient.over(daemon);
    const refused = client.run('fdb/show', ['nowhere']);
    daemon.say('{"id":"1","error":"no such bridge","result":null}');
    await expect(refused).rejects.toMatchObject({
      code: 'command-failed',
      message: expect.stringContaining('no such bridge') as string,
    });
    const next = client.run('list-commands');
    daemon.say('{"id":"2","error":null,"result":""}');
    expect(await next).toBe('');
    await client.close();
  });

  it('ends a wait by its signal and by its time-out, and drops the answer that comes late', async () => {
    const daemon = new FakeDaemon();
    const client = UnixctlClient.over(daemon);
    const cancel = new AbortController();
    const aborted = client.run('a', [], { signal: cancel.signal });
    cancel.abort();
    await expect(aborted).rejects.toThrow(withCode('aborted'));
    await expect(client.run('b', [], { timeoutMs: 1 })).rejects.toThrow(withCode('timeout'));
    const last = client.run('c');
    daemon.say('{"id":"1","error":null,"result":"late"}{"id":"3","error":null,"result":"due"}');
    expect(await last).toBe('due');
    await client.close();
  });

  it('gives up the connection over an answer that is too large, or is none', async () => {
    for (const [text, code] of [
      [`{"id":"1","error":null,"result":"${'x'.repeat(100)}"}`, 'oversize'],
      ['nonsense', 'protocol'],
    ] as const) {
      const daemon = new FakeDaemon();
      const client = UnixctlClient.over(daemon, { maxAnswerBytes: 64 });
      const answer = client.run('a');
      daemon.say(text);
      await expect(answer).rejects.toThrow(withCode(code));
      await expect(client.run('b')).rejects.toThrow(withCode(code));
    }
  });

  it('fails what is pending when the connection ends', async () => {
    const client = UnixctlClient.over(new FakeDaemon());
    const answer = client.run('a');
    await client.close();
    await expect(answer).rejects.toThrow(withCode('disconnected'));
    await expect(client.run('b')).rejects.toThrow(withCode('disconnected'));
  });
});
