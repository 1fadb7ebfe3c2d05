import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';

import { eventually } from '../api/eventually.ts';
import type { Parts } from '../../src/cli/parts.ts';
import { runCli } from '../../src/cli/program.ts';
import { FakeService } from '../api/fake-service.ts';
import { FakeTerminal } from './fake-terminal.ts';
import { noParts } from './run.ts';

async function newStateDir(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'staghorn-serve-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  return join(directory, 'state');
}

interface Serving {
  readonly terminal: FakeTerminal;
  readonly url: string;
  readonly closed: string[];
  readonly exit: Promise<number>;
}

/** `staghorn serve` over a fake service; stopped when the test ends, if it has not ended before. */
async function serve(stateDir: string, extra: string[] = [], close?: () => Promise<void>): Promise<Serving> {
  const terminal = new FakeTerminal();
  const closed: string[] = [];
  const parts: Parts = {
    ...noParts,
    createController: async (options) => ({
      service: new FakeService(),
      close: async () => {
        closed.push(options.stateDir);
        await close?.();
      },
    }),
  };
  const argv = ['serve', '--listen', '127.0.0.1:0', '--state-dir', stateDir, ...extra];
  const exit = runCli(argv, terminal, parts);
  onTestFinished(async () => {
    terminal.signal('SIGTERM');
    await exit;
  });
  await eventually(() => {
    expect(terminal.err).toContain('Staghorn serves');
  });
  const url = (await readFile(join(stateDir, 'url'), 'utf8')).trim();
  return { terminal, url, closed, exit };
}

describe('staghorn serve', () => {
  it('lets a CLI on the same machine in without any argument, and others not', async () => {
    const stateDir = await newStateDir();
    const { url } = await serve(stateDir);
    const client = new FakeTerminal({ env: { STAGHORN_STATE_DIR: stateDir } });
    expect(await runCli(['experiment', 'list'], client, noParts)).toBe(0);
    expect((await fetch(`${url}/v1/experiments`)).status).toBe(401);
    expect((await stat(join(stateDir, 'token'))).mode & 0o777).toBe(0o600);
  });

  it('keeps its token from one start to the next', async () => {
    const stateDir = await newStateDir();
    const first = await serve(stateDir);
    const token = await readFile(join(stateDir, 'token'), 'utf8');
    first.terminal.signal('SIGTERM');
    expect(await first.exit).toBe(0);
    await serve(stateDir);
    expect(await readFile(join(stateDir, 'token'), 'utf8')).toBe(token);
    expect(token.trim().length).toBeGreaterThanOrEqual(40);
  });

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'closes the controller at %s and is found no more',
    async (signal) => {
      const stateDir = await newStateDir();
      const { terminal, url, closed, exit } = await serve(stateDir);
      terminal.signal(signal);
      expect(await exit).toBe(0);
      expect(closed).toEqual([stateDir]);
      await expect(fetch(`${url}/v1/health`)).rejects.toThrow();
      await expect(stat(join(stateDir, 'url'))).rejects.toThrow('ENOENT');
    },
  );

  it('exits at once at a later second signal', async () => {
    const { terminal, closed, exit } = await serve(
      await newStateDir(),
      [],
      () => new Promise(() => undefined),
    );
    let code: number | null = null;
    void exit.then((given) => (code = given));
    await eventually(() => {
      terminal.signal('SIGTERM');
      expect(code).toBe(130);
    });
    expect(closed).toHaveLength(1);
  });

  it('takes signals that come together for one', async () => {
    const { terminal, closed, exit } = await serve(await newStateDir());
    terminal.signal('SIGTERM');
    terminal.signal('SIGTERM');
    expect(await exit).toBe(0);
    expect(closed).toHaveLength(1);
  });

  it('asks for no token with --no-token', async () => {
    const { url } = await serve(await newStateDir(), ['--no-token']);
    expect((await fetch(`${url}/v1/experiments`)).status).toBe(200);
  });

  it.each([
    [['--listen', 'nonsense'], 'is not HOST:PORT'],
    [['--listen', '127.0.0.1:70000'], 'is not HOST:PORT'],
    [['--no-token', '--token-file', '/tmp/t'], 'contradict'],
    [['--token-file', '/nonexistent'], 'token file'],
    [['--state-dir', '/dev/null/x'], '--state-dir'],
  ])('refuses %j', async (extra, message) => {
    const terminal = new FakeTerminal();
    const exit = await runCli(['serve', '--state-dir', await newStateDir(), ...extra], terminal, noParts);
    expect([exit, terminal.err]).toEqual([2, expect.stringContaining(message)]);
  });

  it('says that the address is taken, and closes the controller', async () => {
    const { url } = await serve(await newStateDir());
    const terminal = new FakeTerminal();
    let closed = 0;
    const controller = { service: new FakeService(), close: async () => void (closed += 1) };
    const parts: Parts = { ...noParts, createController: async () => controller };
    const argv = ['serve', '--listen', new URL(url).host, '--state-dir', await newStateDir()];
    expect(await runCli(argv, terminal, parts)).toBe(5);
    expect(terminal.err).toContain('EADDRINUSE');
    expect(closed).toBe(1);
  });
});
