import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { StaghornError } from '../../src/errors/index.ts';
import {
  connectAgent,
  deployAgent,
  openSshSession,
  type ConnectAgentOptions,
  type ConnectedAgent,
  type SshSession,
} from '../../src/transport/index.ts';
import { chooseNode, localNode } from '../../src/transport/agent-node.ts';
import { probeHost } from '../../src/transport/agent-probe.ts';
import { fixtureContract } from './agent-fixture-contract.ts';
import {
  TestSshd,
  makeKey,
  makeTestDirectory,
  publicKey,
  removeTestDirectory,
  writeSshConfig,
} from './sshd.ts';
import { TestUser } from './sudo-user.ts';

const directory = makeTestDirectory();
const file = (name: string) => join(directory, name);
const uploads = file('uploads');
const stops: (() => Promise<unknown>)[] = [];
let user: TestUser | undefined;
let files: ConnectAgentOptions['files'];
let cacheCount = 0;

/** Starts an sshd that is the host `alias` of an ssh_config of its own; returns that file. */
async function startHost(alias: string, login: string, path: string, hidden: string[] = []): Promise<string> {
  const key = file('user');
  // Not the home of the machine's own root, whose dotfiles are no part of the test.
  const extra = [
    `SetEnv PATH=${path} HOME=${user?.name === login ? user.home : directory} TMPDIR=${uploads}`,
  ];
  const sshd = await TestSshd.start({ directory, name: alias, authorized: [publicKey(key)], extra, hidden });
  stops.push(() => sshd.stop());
  writeFileSync(file(`${alias}-known`), sshd.knownHostsLine());
  const host = {
    Port: String(sshd.port),
    User: login,
    IdentityFile: key,
    UserKnownHostsFile: file(`${alias}-known`),
  };
  return writeSshConfig(file(`${alias}-config`), { [alias]: host });
}

const systemPath = '/usr/local/bin:/usr/bin:/bin';
let rootHost: { host: string; configFile: string };

beforeAll(async () => {
  mkdirSync(uploads);
  chmodSync(uploads, 0o1777);
  makeKey(file('user'));
  const outfile = file('agent.cjs');
  await build({
    entryPoints: [join(import.meta.dirname, 'agent-fixture.ts')],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    logLevel: 'error',
  });
  writeFileSync(file('second'), 'another file of the agent');
  files = [
    { name: 'agent.cjs', path: outfile },
    { name: 'addon.node', path: file('second'), mode: 0o755 },
  ];
  rootHost = { host: 'root-host', configFile: await startHost('root-host', 'root', systemPath) };
});
afterAll(async () => {
  for (const stop of stops) await stop();
  user?.remove();
  removeTestDirectory(directory);
});

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

async function login(target: { host: string; configFile: string }): Promise<SshSession> {
  const session = await openSshSession({ ...target, timeoutMs: 10_000 });
  open.push(session);
  return session;
}

async function connect(
  options: Partial<ConnectAgentOptions> = {},
  target = rootHost,
): Promise<ConnectedAgent<typeof fixtureContract>> {
  const agent = await connectAgent(fixtureContract, target, {
    files,
    cacheDirectory: file('cache'),
    ...options,
  });
  open.push(agent);
  return agent;
}

const freshCache = () => file(`cache-${(cacheCount += 1)}`);
const limits = { timeoutMs: 10_000 };
const thrown = (promise: Promise<unknown>) =>
  promise.then(
    () => expect.unreachable('it should have failed'),
    (error: unknown) => error as StaghornError,
  );

describe('an agent', () => {
  it('is deployed, started and answers, with arguments and environment', async () => {
    const { client, deployed } = await connect({ args: ['serve'], env: { FIXTURE_VARIABLE: "it's; $HOME" } });
    const answer = await client.call('describe', null, limits);
    expect(answer).toMatchObject({
      uid: 0,
      script: `${deployed.directory}/agent.cjs`,
      variable: "it's; $HOME",
    });
    expect(answer.node).toBe(deployed.node.path);
  });

  it('has its errors arrive with code, context and the host as named by the user', async () => {
    const { client } = await connect();
    expect(await thrown(client.call('fail', null, limits))).toMatchObject({
      code: 'vm-unfit',
      context: { vm: 'a', host: 'root-host' },
    });
  });

  it('carries megabytes, and refuses what is over the limit without losing the connection', async () => {
    const { client } = await connect({ maxMessageBytes: 8 * 1024 * 1024 });
    expect((await client.call('repeat', { text: 'frame', times: 1_000_000 }, limits)).length).toBe(5_000_000);
    const large = client.call('repeat', { text: 'x'.repeat(9_000_000), times: 1 }, limits);
    expect((await thrown(large)).code).toBe('protocol-violation');
    expect(await client.call('repeat', { text: 'a', times: 3 }, limits)).toBe('aaa');
  });

  it('learns that a call was cancelled or is late', async () => {
    const { client } = await connect();
    const told: string[] = [];
    await client.call('describe', null, limits);
    client.onNotification('aborted', ({ why }) => told.push(why));
    expect((await thrown(client.call('wait', null, { timeoutMs: 300 }))).code).toBe('deadline-exceeded');
    await expect.poll(() => told).toEqual(['cancelled']);
    const stop = new AbortController();
    const call = thrown(client.call('wait', null, { ...limits, signal: stop.signal }));
    await client.call('repeat', { text: '', times: 1 }, limits);
    stop.abort();
    expect((await call).code).toBe('cancelled');
    await expect.poll(() => told).toEqual(['cancelled', 'cancelled']);
  });

  it('that exits at its start fails the first call with its exit code and last words', async () => {
    const { client } = await connect({ args: ['exit'] });
    const error = await thrown(client.call('describe', null, limits));
    expect(error).toMatchObject({ code: 'agent-lost', context: { host: 'root-host' } });
    expect(error.message).toMatch(/exited with code 3.*the addon does not load$/s);
    expect(error.message.length).toBeLessThan(9000);
  });

  it('that writes other things to its output is given up, quoting them', async () => {
    const { client } = await connect({ args: ['chatter'] });
    const error = await client.closed;
    expect(error).toMatchObject({ code: 'protocol-violation', context: { host: 'root-host' } });
    expect(error.message).toContain('Hello, this is no message');
  });

  it('that is killed fails pending and later calls with agent-lost', async () => {
    const { client } = await connect();
    const { pid } = await client.call('describe', null, limits);
    const pending = thrown(client.call('wait', null, limits));
    process.kill(pid, 'SIGKILL');
    const error = await pending;
    expect(error).toMatchObject({ code: 'agent-lost', context: { host: 'root-host' } });
    expect(error.message).toMatch(/killed by SIGKILL/);
    expect((await client.closed).code).toBe('agent-lost');
    expect((await thrown(client.call('describe', null, limits))).code).toBe('agent-lost');
  });

  it('whose host is gone is lost', async () => {
    const { client, session } = await connect();
    const pending = thrown(client.call('wait', null, limits));
    await client.call('describe', null, limits);
    const { stdout } = await session.run('echo $PPID', limits);
    process.kill(Number(stdout), 'SIGKILL');
    expect((await pending).code).toBe('agent-lost');
  });

  it('ends in order when it is closed', async () => {
    const agent = await connect({ args: ['serve', file('goodbye')] });
    const { pid } = await agent.client.call('describe', null, limits);
    await agent.close();
    expect(readFileSync(file('goodbye'), 'utf8')).toBe('ended in order\n');
    expect(existsSync(`/proc/${pid}`)).toBe(false);
  });
});

describe('deployment', () => {
  it('uploads once, and anew when a cached file is damaged', async () => {
    const session = await login(rootHost);
    const cacheDirectory = freshCache();
    const sent: string[] = [];
    const options = { files, cacheDirectory, onProgress: (name: string) => sent.push(name) };
    const first = await deployAgent(session, options);
    expect(first.uploaded).toBe(true);
    expect(new Set(sent)).toEqual(new Set(['agent.cjs', 'addon.node']));
    expect(statSync(join(first.directory, 'addon.node')).mode & 0o777).toBe(0o755);
    expect(await deployAgent(session, options)).toEqual({ ...first, uploaded: false });
    writeFileSync(join(first.directory, 'agent.cjs'), 'process.exit(99)');
    expect(await deployAgent(session, options)).toEqual(first);
    expect(readFileSync(join(first.directory, 'agent.cjs')).equals(readFileSync(file('agent.cjs')))).toBe(
      true,
    );
    expect(readdirSync(join(cacheDirectory, 'agent'))).toHaveLength(1);
    expect(readdirSync(uploads)).toEqual([]);
  });

  it('may happen several times at once', async () => {
    const cacheDirectory = freshCache();
    const sessions = await Promise.all([login(rootHost), login(rootHost), login(rootHost)]);
    const deployed = await Promise.all(
      sessions.map((session) => deployAgent(session, { files, cacheDirectory })),
    );
    expect(new Set(deployed.map((each) => each.directory)).size).toBe(1);
    expect(readdirSync(join(cacheDirectory, 'agent'))).toHaveLength(1);
    const again = await deployAgent(await login(rootHost), { files, cacheDirectory });
    expect(again.uploaded).toBe(false);
  });

  it('keeps the last three versions', async () => {
    const session = await login(rootHost);
    const cacheDirectory = freshCache();
    const versions: string[] = [];
    for (const version of [1, 2, 3, 4]) {
      writeFileSync(file(`version-${version}`), `version ${version}`);
      const own = [...files, { name: 'version', path: file(`version-${version}`) }];
      const { directory: place } = await deployAgent(session, { files: own, cacheDirectory });
      versions.push(place);
      utimesSync(place, new Date(), new Date(Date.now() - 100_000 + version * 1000));
    }
    expect(versions.map((place) => existsSync(place))).toEqual([false, true, true, true]);
  });

  it('sends the controller’s own Node.js to a host that has none', async () => {
    const nodes = ['/usr/bin/node', '/usr/bin/nodejs', '/usr/local/bin/node'].filter((path) =>
      existsSync(path),
    );
    const configFile = await startHost('bare', 'root', systemPath, [
      ...new Set(nodes.map((path) => realpathSync(path))),
    ]);
    const cacheDirectory = freshCache();
    const first = await connect({ cacheDirectory }, { host: 'bare', configFile });
    expect(first.deployed.node).toMatchObject({ uploaded: true });
    const { node } = await first.client.call('describe', null, limits);
    expect(node).toBe(first.deployed.node.path);
    expect(node.startsWith(`${cacheDirectory}/node/`)).toBe(true);
    const second = await connect({ cacheDirectory }, { host: 'bare', configFile });
    expect(second.deployed.node).toEqual({ path: node, uploaded: false });
  });

  it('says what to install where neither the host nor the controller has a Node.js that fits', async () => {
    const bin = file('old-bin');
    mkdirSync(bin);
    writeFileSync(join(bin, 'node'), '#!/bin/sh\necho v18.20.4\n', { mode: 0o755 });
    const session = await login(rootHost);
    const probe = await probeHost(session, { nodePath: join(bin, 'node'), timeoutMs: 10_000 });
    expect(probe.nodes[0]).toEqual({ path: join(bin, 'node'), version: '18.20.4' });
    expect(probe.glibcVersion).toMatch(/^2\.\d+$/);
    expect(localNode().glibcVersion).toBe(probe.glibcVersion);
    const bare = { ...probe, nodes: probe.nodes.slice(0, 1) };
    expect(chooseNode('h', bare, localNode)).toEqual({ kind: 'upload', path: process.execPath });
    const foreign = () => ({ ...localNode(), architecture: 's390x' });
    expect(() => chooseNode('h', bare, foreign)).toThrow(/18\.20\.4.*x86_64.*Install Node\.js 20\.19/);
    expect(() => chooseNode('h', { ...bare, glibcVersion: '2.17' }, localNode)).toThrow(/glibc 2\.17/);
    expect(() => chooseNode('h', { ...bare, glibcVersion: null }, localNode)).toThrow(
      /not run the GNU C library/,
    );
  });

  it('says which file of the agent cannot be read, and what a host has no room for', async () => {
    const session = await login(rootHost);
    const missing = deployAgent(session, { files: [{ name: 'agent.cjs', path: '/nowhere' }] });
    expect(await thrown(missing)).toMatchObject({ code: 'invalid-input' });
    const unfit = await thrown(deployAgent(session, { files, cacheDirectory: '/proc/staghorn' }));
    expect(unfit).toMatchObject({ code: 'host-unfit', context: { host: 'root-host' } });
    expect(unfit.message).toContain('/proc/staghorn');
  });
});

describe('a user who is not root', () => {
  let sudoer: { host: string; configFile: string };
  let plain: { host: string; configFile: string };
  beforeAll(async () => {
    user = new TestUser(directory);
    const grants = `${user.grantingSudo(directory)}:${systemPath}`;
    const refuses = `${user.refusingSudo(directory)}:${systemPath}`;
    sudoer = { host: 'sudoer', configFile: await startHost('sudoer', user.name, grants) };
    plain = { host: 'plain', configFile: await startHost('plain', user.name, refuses) };
  });

  it('gets an agent that is root where sudo allows it', async () => {
    const cacheDirectory = freshCache();
    const { client, deployed } = await connect({ cacheDirectory, env: { FIXTURE_VARIABLE: 'kept' } }, sudoer);
    expect(await client.call('describe', null, limits)).toMatchObject({ uid: 0, variable: 'kept' });
    expect(deployed.privilege).toBe('sudo');
    expect(statSync(join(deployed.directory, 'agent.cjs')).uid).toBe(0);
  });

  it('is told the line for sudoers where it does not', async () => {
    const error = await thrown(connect({}, plain));
    expect(error).toMatchObject({ code: 'privilege-missing', context: { host: 'plain' } });
    expect(error.message).toContain('sudo: a password is required');
    expect(error.message).toContain(`${user?.name} ALL=(root) NOPASSWD: ALL`);
  });

  it('gets an agent of its own where root is not needed', async () => {
    const { client, deployed } = await connect({ needsRoot: false, cacheDirectory: undefined }, plain);
    expect(await client.call('describe', null, limits)).toMatchObject({ uid: user?.uid });
    expect(deployed.directory).toContain(`${user?.home}/.cache/staghorn/agent/`);
  });
});
