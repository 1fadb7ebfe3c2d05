import { existsSync, writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCut } from '../../src/native/barrier.ts';
import { monotonicNs } from '../../src/native/clock.ts';
import { QmpClient, QmpError, connectUnixSocket } from '../../src/qmp/index.ts';
import type { QmpConnectOptions } from '../../src/qmp/index.ts';
import { BareQemu, qemuBinary } from './qemu.ts';

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;

describe.skipIf(!existsSync(qemuBinary))('QmpClient with a real QEMU (needs qemu-system-x86_64)', () => {
  let qemu: BareQemu;
  const opened: QmpClient[] = [];

  async function connectTo(options: Partial<QmpConnectOptions> = {}): Promise<QmpClient> {
    const client = await QmpClient.connect({ path: qemu.path, timeoutMs: 20_000, ...options });
    opened.push(client);
    return client;
  }

  beforeEach(async () => {
    qemu = new BareQemu();
    await qemu.listening();
  });

  afterEach(async () => {
    for (const client of opened.splice(0)) await client.close();
    await qemu.destroy();
  });

  it('greets, negotiates and answers queries', async () => {
    const client = await connectTo();
    expect(client.greeting.version.major).toBeGreaterThanOrEqual(6);
    expect(await client.execute('query-status')).toMatchObject({ running: false, status: 'prelaunch' });
    expect((await client.execute('query-machines')).map(({ name }) => name)).toContain('microvm');
    expect(await client.execute('query-kvm')).toMatchObject({ enabled: false });
    const { qemu: version } = await client.execute('query-version');
    expect(version).toEqual(client.greeting.version);
    expect(await client.execute('human-monitor-command', { 'command-line': 'info status' })).toMatch(
      /paused/,
    );
  });

  it('reads an answer of hundreds of kilobytes, and refuses it under a smaller limit', async () => {
    const client = await connectTo();
    const schema = await client.execute('query-qmp-schema');
    expect(schema.length).toBeGreaterThan(500);
    await client.close();
    const strict = await connectTo({ maxMessageBytes: 10_000 });
    await expect(strict.execute('query-qmp-schema')).rejects.toEqual(withCode('oversize'));
    expect((await strict.closed)?.code).toBe('oversize');
  });

  it('runs commands out of band where that is negotiated', async () => {
    const client = await connectTo({ oob: true });
    expect(client.capabilities).toEqual(['oob']);
    const failed = client.execute('migrate-recover', { uri: 'tcp:127.0.0.1:1' }, { outOfBand: true });
    await expect(failed).rejects.toMatchObject({
      failure: { description: expect.stringMatching(/postcopy/) as string },
    });
  });

  it('continues and stops the VM, with an event for each, stamped in order', async () => {
    const client = await connectTo();
    const beforeNs = BigInt(Date.now()) * 1_000_000n;
    const resumed = client.waitEvent('RESUME', { timeoutMs: 20_000 });
    await client.execute('cont');
    const resumedNs = (await resumed).timestampNs;
    expect(await client.execute('query-status')).toMatchObject({ running: true, status: 'running' });
    await client.execute('stop');
    const stopped = await client.waitEvent('STOP', { since: resumedNs, timeoutMs: 20_000 });
    expect(await client.execute('query-status')).toMatchObject({ running: false, status: 'paused' });
    expect(resumedNs).toBeGreaterThanOrEqual(beforeNs);
    expect(stopped.timestampNs).toBeGreaterThan(resumedNs);
    expect(stopped.timestampNs).toBeLessThanOrEqual(BigInt(Date.now() + 1) * 1_000_000n);
  });

  it("reports a failed command in QEMU's own words", async () => {
    const client = await connectTo();
    const failure = await client.execute('no-such-command').catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(QmpError);
    expect(failure).toMatchObject({
      code: 'command-failed',
      failure: { command: 'no-such-command', errorClass: 'CommandNotFound' },
    });
    await expect(client.execute('closefd', { fdname: 'none' })).rejects.toMatchObject({
      failure: {
        errorClass: 'GenericError',
        description: expect.stringMatching(/'none' not found/) as string,
      },
    });
  });

  it('tells a second client that another one holds the socket, and serves it when that has gone', async () => {
    const first = await connectTo();
    const second = QmpClient.connect({ path: qemu.path, timeoutMs: 300 });
    await expect(second).rejects.toMatchObject({
      code: 'no-greeting',
      message: expect.stringMatching(/another client/) as string,
    });
    await first.close();
    const third = await connectTo();
    expect(await third.execute('query-name')).toEqual({});
  });

  it('says the same at once when even the queue of waiting clients is full', async () => {
    await connectTo();
    const waiting = [];
    try {
      let refused: unknown;
      while (refused === undefined && waiting.length < 600) {
        const transport = await connectUnixSocket(qemu.path).catch((error: unknown) => {
          refused = error;
          return undefined;
        });
        if (transport !== undefined) waiting.push(transport);
      }
      expect(refused).toEqual(withCode('no-greeting'));
    } finally {
      for (const transport of waiting) transport.close();
    }
  });

  it('stops waiting for the greeting when the caller aborts', async () => {
    await connectTo();
    const abort = new AbortController();
    const second = QmpClient.connect({ path: qemu.path, signal: abort.signal });
    abort.abort();
    await expect(second).rejects.toEqual(withCode('aborted'));
  });

  it('fails what is pending when QEMU is killed', async () => {
    const client = await connectTo();
    process.kill(qemu.process.pid ?? 0, 'SIGSTOP');
    const pending = client.execute('query-status');
    const waited = client.waitEvent('STOP');
    qemu.process.kill('SIGKILL');
    await expect(pending).rejects.toEqual(withCode('disconnected'));
    await expect(waited).rejects.toEqual(withCode('disconnected'));
    expect((await client.closed)?.code).toBe('disconnected');
    expect(() => client.fd).toThrow(withCode('disconnected'));
  });

  it('takes the reply and the event of a command that was written straight onto the descriptor', async () => {
    const client = await connectTo();
    await client.execute('cont');
    const stop = client.prepare('stop');
    const query = client.prepare('query-status');
    const stopped = client.waitEvent('STOP', { timeoutMs: 20_000 });
    expect(client.unwrittenBytes).toBe(0);
    for (const bytes of [stop.bytes, query.bytes]) expect(writeSync(client.fd, bytes)).toBe(bytes.length);
    await expect(stop.reply).resolves.toEqual({});
    expect((await query.reply).status).toBe('paused');
    expect((await stopped).name).toBe('STOP');
  });

  it('reads and writes nothing while it is left alone, and all of it afterwards', async () => {
    const client = await connectTo();
    await client.execute('cont');
    const stop = client.prepare('stop');
    let told = false;
    void stop.reply.then(() => (told = true));
    const readAgain = client.leaveAlone();
    const status = client.execute('query-status');
    // It ends when there is something to read: QEMU's word that it stopped.
    await runCut({
      ...{ atNs: monotonicNs(), spinNs: 0, modeWords: [], taps: [], ringBoundNs: 0, journal: null },
      ...{ writes: [{ fd: client.fd, bytes: stop.bytes }], answerBoundNs: 20e9 },
    });
    expect(told).toBe(false);
    readAgain();
    expect((await status).status).toBe('paused');
    expect(told).toBe(true);
  });

  it('gives the connection up when unreadable bytes were written onto the descriptor', async () => {
    const client = await connectTo();
    const { reply } = client.prepare('query-status');
    writeSync(client.fd, Buffer.from('{"execute": oops}\n'));
    await expect(reply).rejects.toEqual(withCode('protocol'));
  });

  it('takes the answer to quit, the SHUTDOWN event and the end of the connection', async () => {
    const client = await connectTo();
    const shutdown = client.waitEvent('SHUTDOWN', { timeoutMs: 20_000 });
    await expect(client.execute('quit')).resolves.toEqual({});
    expect((await shutdown).data).toMatchObject({ guest: false, reason: 'host-qmp-quit' });
    await qemu.exited();
    expect((await client.closed)?.code).toBe('disconnected');
  });
});

describe('connecting', () => {
  it('says which socket is not there', async () => {
    const path = `/tmp/staghorn-qmp-${process.pid}-nowhere.sock`;
    await expect(QmpClient.connect({ path })).rejects.toMatchObject({
      code: 'connect-failed',
      message: expect.stringContaining(path) as string,
      cause: { code: 'ENOENT' },
    });
  });
});
