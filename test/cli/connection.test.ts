import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';

import { eventually } from '../api/eventually.ts';
import { findServer } from '../../src/cli/connection.ts';
import { listen } from '../api/start.ts';
import { run } from './run.ts';

async function stateDir(files: Record<string, string>): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'staghorn-cli-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content);
  return directory;
}

describe('finding the server', () => {
  it('goes by the state directory of a server on this machine', async () => {
    const env = { STAGHORN_STATE_DIR: await stateDir({ url: 'http://127.0.0.1:1234\n', token: 'local\n' }) };
    expect(await findServer({}, env)).toEqual({ url: 'http://127.0.0.1:1234', token: 'local' });
  });

  it('prefers options to the environment, and that to files', async () => {
    const env = {
      STAGHORN_STATE_DIR: await stateDir({ url: 'http://file', token: 'file', other: 'option' }),
    };
    const named = { ...env, STAGHORN_URL: 'http://env/', STAGHORN_TOKEN: 'env' };
    expect(await findServer({}, named)).toEqual({ url: 'http://env', token: 'env' });
    const options = { url: 'https://option:1', tokenFile: join(env.STAGHORN_STATE_DIR, 'other') };
    expect(await findServer(options, named)).toEqual({ url: 'https://option:1', token: 'option' });
  });

  it("does not send this machine's token elsewhere", async () => {
    const env = { STAGHORN_STATE_DIR: await stateDir({ token: 'local' }) };
    expect((await findServer({ url: 'http://elsewhere:7411' }, env)).token).toBeNull();
    expect((await findServer({ url: 'http://localhost:7411' }, env)).token).toBe('local');
  });

  it('uses the token', async () => {
    const { url } = await listen({ token: 'secret' });
    expect((await run(url, 'snapshots')).exit).toBe(3);
    expect((await run(url, 'snapshots', { env: { STAGHORN_TOKEN: 'secret' } })).exit).toBe(0);
    const file = join(await stateDir({ t: 'secret\n' }), 't');
    expect((await run(url, `snapshots --token-file ${file}`)).exit).toBe(0);
    expect((await run(url, 'snapshots --token-file /nonexistent')).exit).toBe(2);
  });
});

describe('a server that is not as it should be', () => {
  it('is named with what to do, if none answers', async () => {
    const { app, url } = await listen();
    await app.close();
    const { exit, err } = await run(url, 'snapshots');
    expect(exit).toBe(6);
    expect(err).toMatch(
      new RegExp(
        `^staghorn: no Staghorn server answers at ${url} \\(.*ECONNREFUSED.*\\); start one with "staghorn serve"\\n$`,
      ),
    );
  });

  it('is told from a Staghorn server', async () => {
    const other = createServer((_request, answer) => answer.writeHead(500).end('<html>oops</html>'));
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void other.close());
    const { exit, err } = await run(`http://127.0.0.1:${(other.address() as AddressInfo).port}`, 'snapshots');
    expect([exit, err]).toEqual([
      17,
      expect.stringContaining('answered 500, and not as a Staghorn server does'),
    ]);
  });

  it('may break the event stream: it is taken up where it broke', async () => {
    const { service, url } = await listen();
    service.finishAtOnce = false;
    const whole = service.operations.events.bind(service.operations);
    const asked: (number | undefined)[] = [];
    service.operationEvents = async function* (id, options) {
      asked.push(options.afterId);
      for await (const event of whole(id, options)) {
        yield event;
        if (asked.length === 1) return;
      }
    };
    const running = run(url, 'experiment pause lab');
    await eventually(() => {
      expect(service.operations.readers).toBe(1);
    });
    service.operations.progress('op-1', { step: 'arm', message: 'arming' });
    await eventually(() => {
      expect(asked).toEqual([0, 1]);
    });
    service.operations.end('op-1', {});
    expect(await running).toEqual({ exit: 0, out: 'time stands still in lab\n', err: 'arm: arming\n' });
  });
});

describe('the command line', () => {
  it.each(['nonsense', 'snapshots --nonsense', 'snapshot', 'experiment', 'snapshots a b'])(
    'is refused with exit code 2 and one line: staghorn %s',
    async (line) => {
      const { exit, out, err } = await run('http://127.0.0.1:1', line);
      expect([exit, out]).toEqual([2, '']);
      expect(err).toMatch(/^staghorn: .+$/m);
    },
  );

  it('tells of usage errors in JSON too', async () => {
    const { exit, err } = await run('http://127.0.0.1:1', 'snapshots --nonsense --json');
    expect([exit, JSON.parse(err)]).toMatchObject([2, { code: 'invalid-input' }]);
  });

  it('helps and gives its version with exit code 0', async () => {
    const help = await run('http://127.0.0.1:1', '--help');
    expect(help.exit).toBe(0);
    for (const word of [
      'serve',
      'lab',
      'experiment',
      'snapshot ',
      'snapshots',
      'restore',
      'verify',
      'delete',
      'frames',
      'operations',
      'cancel',
    ]) {
      expect(help.out).toContain(`  ${word}`);
    }
    expect(await run('http://127.0.0.1:1', '--version')).toMatchObject({
      exit: 0,
      out: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) as string,
    });
  });
});
