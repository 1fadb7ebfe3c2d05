import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { StaghornError } from '../../src/errors/index.ts';
import { openSshSession, type SshSession } from '../../src/transport/index.ts';
import {
  TestSshd,
  fingerprintOf,
  freePort,
  makeKey,
  makeTestDirectory,
  publicKey,
  removeTestDirectory,
  writeSshConfig,
} from './sshd.ts';

const directory = makeTestDirectory();
const file = (name: string) => join(directory, name);
let sshd: TestSshd;
let userKey: string;
let knownHosts: string;
let configCount = 0;

beforeAll(async () => {
  userKey = makeKey(file('user'));
  const encrypted = makeKey(file('encrypted'), 'ed25519', 'secret');
  makeKey(file('stranger'));
  const authorized = [publicKey(userKey), publicKey(encrypted)];
  // Not the home of the machine's own root, whose dotfiles are no part of the test.
  const extra = [`SetEnv HOME=${directory}`];
  sshd = await TestSshd.start({
    directory,
    name: 'target',
    authorized,
    hostKeyTypes: ['ed25519', 'ecdsa', 'rsa'],
    extra,
  });
  knownHosts = file('known_hosts');
  writeFileSync(knownHosts, sshd.knownHostsLine());
});
afterAll(async () => {
  await sshd?.stop();
  removeTestDirectory(directory);
});

/** An ssh_config for the host "target", with what a test changes. */
function config(
  changes: Record<string, string> = {},
  others: Record<string, Record<string, string>> = {},
): string {
  const target = {
    Port: String(sshd.port),
    UserKnownHostsFile: knownHosts,
    IdentityFile: userKey,
    ...changes,
  };
  return writeSshConfig(file(`config-${(configCount += 1)}`), { target, ...others });
}

function open(configFile: string, more: { signal?: AbortSignal; timeoutMs?: number; user?: string } = {}) {
  return openSshSession({ host: 'target', configFile, timeoutMs: 10_000, ...more });
}

async function refusal(configFile: string, more: Parameters<typeof open>[1] = {}): Promise<StaghornError> {
  try {
    const session = await open(configFile, more);
    await session.close();
  } catch (error) {
    return error as StaghornError;
  }
  return expect.unreachable('the login should have failed');
}

async function whoami(session: SshSession): Promise<string> {
  const { stdout } = await session.run('id -un', { timeoutMs: 5000 });
  await session.close();
  return stdout.trim();
}

describe('an SSH login', () => {
  it('works by an alias of ssh_config', async () => {
    expect(await whoami(await open(config()))).toBe('root');
  });

  it('takes the first key that is accepted of several', async () => {
    const configFile = config({ IdentityFile: `${file('stranger')}\n  IdentityFile ${userKey}` });
    expect(await whoami(await open(configFile))).toBe('root');
  });

  it('works with a key that only the agent has', async () => {
    const agent = execFileSync('ssh-agent', ['-s'], { encoding: 'utf8' });
    const socket = /SSH_AUTH_SOCK=([^;]+)/.exec(agent)?.[1] ?? '';
    const pid = Number(/SSH_AGENT_PID=(\d+)/.exec(agent)?.[1]);
    try {
      execFileSync('ssh-add', ['-q', userKey], { env: { ...process.env, SSH_AUTH_SOCK: socket } });
      const inAgent = { IdentityAgent: socket, IdentityFile: file('encrypted') };
      expect(await whoami(await open(config(inAgent)))).toBe('root');
      const error = await refusal(config({ ...inAgent, IdentitiesOnly: 'yes' }));
      expect(error.code).toBe('authentication-failed');
    } finally {
      process.kill(pid);
    }
  });

  it('says user and keys when all are refused', async () => {
    const error = await refusal(config({ IdentityFile: file('stranger'), User: 'nobody' }));
    expect(error.code).toBe('authentication-failed');
    expect(error.message).toContain('user nobody');
    expect(error.message).toContain(fingerprintOf(file('stranger')));
    expect(error.context.host).toBe('target');
  });

  it('says that a key is encrypted or missing', async () => {
    const encrypted = await refusal(config({ IdentityFile: file('encrypted') }));
    expect(encrypted.code).toBe('authentication-failed');
    expect(encrypted.message).toMatch(/encrypted; load it into an agent first \(ssh-add/);
    const missing = await refusal(config({ IdentityFile: file('nowhere') }));
    expect(missing.message).toMatch(/nowhere: there is no such file/);
  });
});

describe('host keys', () => {
  it('are refused when unknown, with fingerprint and files', async () => {
    const error = await refusal(config({ UserKnownHostsFile: file('empty') }));
    expect(error.code).toBe('host-key-mismatch');
    expect(error.message).toMatch(/host target .*unknown/);
    expect(error.message).toContain(fingerprintOf(sshd.hostKeys.get('ed25519') ?? ''));
    expect(error.message).toContain(file('empty'));
  });

  it('are refused when changed, whatever StrictHostKeyChecking says', async () => {
    writeFileSync(file('changed'), `[127.0.0.1]:${sshd.port} ${publicKey(file('stranger'))}\n`);
    const error = await refusal(config({ UserKnownHostsFile: file('changed'), StrictHostKeyChecking: 'no' }));
    expect(error.code).toBe('host-key-mismatch');
    expect(error.message).toMatch(/CHANGED/);
    expect(error.message).toContain(`${file('changed')}:1`);
    expect(error.message).toContain(fingerprintOf(file('stranger')));
  });

  it('are refused when revoked', async () => {
    const line = sshd.knownHostsLine();
    writeFileSync(file('revoked'), `${line}@revoked * ${publicKey(sshd.hostKeys.get('ed25519') ?? '')}\n`);
    const error = await refusal(config({ UserKnownHostsFile: file('revoked') }));
    expect(error.code).toBe('host-key-mismatch');
    expect(error.message).toMatch(/revoked/);
  });

  it('are found in hashed lines, as ssh-keygen -H makes them', async () => {
    writeFileSync(file('hashed'), sshd.knownHostsLine());
    execFileSync('ssh-keygen', ['-q', '-H', '-f', file('hashed')], { stdio: 'ignore' });
    expect(readFileSync(file('hashed'), 'utf8')).toMatch(/^\|1\|/);
    expect(await whoami(await open(config({ UserKnownHostsFile: file('hashed') })))).toBe('root');
  });

  it.each(['ecdsa', 'rsa'])('of type %s are asked for where only that is known', async (type) => {
    writeFileSync(file(type), sshd.knownHostsLine(type));
    expect(await whoami(await open(config({ UserKnownHostsFile: file(type) })))).toBe('root');
  });

  it('are found under HostKeyAlias', async () => {
    writeFileSync(file('alias'), `other-name ${publicKey(sshd.hostKeys.get('ed25519') ?? '')}\n`);
    const configFile = config({ UserKnownHostsFile: file('alias'), HostKeyAlias: 'other-name' });
    expect(await whoami(await open(configFile))).toBe('root');
  });

  it('say that certificates are not supported where one would be needed', async () => {
    writeFileSync(file('authority'), `@cert-authority *127.0.0.1* ${publicKey(file('stranger'))}\n`);
    const error = await refusal(config({ UserKnownHostsFile: file('authority') }));
    expect(error.message).toMatch(/@cert-authority.*not supported/);
  });
});

describe('a host that cannot be reached', () => {
  it('is named with address and port when the port is closed', async () => {
    const port = await freePort();
    const error = await refusal(config({ Port: String(port) }));
    expect(error.code).toBe('host-unreachable');
    expect(error.message).toContain(`host target (127.0.0.1 port ${port})`);
    expect(error.message).toContain('ECONNREFUSED');
  });

  it('is named when it has no address', async () => {
    const error = await refusal(config({ HostName: 'no-such-host.invalid' }));
    expect(error.code).toBe('host-unreachable');
    expect(error.message).toContain('no-such-host.invalid');
  });

  it('ends the wait at the time-out when it accepts and says nothing, or when the caller aborts', async () => {
    const sockets: Socket[] = [];
    const silent = createServer((socket) => sockets.push(socket)).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    try {
      const configFile = config({ Port: String((silent.address() as AddressInfo).port) });
      const late = await refusal(configFile, { timeoutMs: 200 });
      expect(late.code).toBe('host-unreachable');
      expect(late.message).toMatch(/no answer within 200 ms/);
      const stop = new AbortController();
      const waiting = refusal(configFile, { signal: stop.signal });
      await once(silent, 'connection');
      stop.abort();
      expect((await waiting).code).toBe('cancelled');
    } finally {
      for (const socket of sockets) socket.destroy();
      silent.close();
    }
  });

  it('is told from one whose sshd hangs up', async () => {
    const rude = createServer((socket) => socket.end('Exceeded MaxStartups\r\n')).listen(0, '127.0.0.1');
    await once(rude, 'listening');
    try {
      const error = await refusal(config({ Port: String((rude.address() as AddressInfo).port) }));
      expect(error.code).toBe('host-unreachable');
    } finally {
      rude.close();
    }
  });
});

describe('a way through other hosts', () => {
  it('is ProxyJump, with the keys of both hosts checked', async () => {
    const jumpKey = makeKey(file('jumper'));
    const jump = await TestSshd.start({ directory, name: 'jump', authorized: [publicKey(jumpKey)] });
    try {
      writeFileSync(file('jump-known'), jump.knownHostsLine());
      const hop = { Port: String(jump.port), UserKnownHostsFile: file('jump-known'), IdentityFile: jumpKey };
      const session = await open(config({ ProxyJump: 'hop' }, { hop }));
      expect(await whoami(session)).toBe('root');
      expect(jump.log).toContain('Accepted publickey');
      const wrong = await refusal(
        config({ ProxyJump: 'hop' }, { hop: { ...hop, UserKnownHostsFile: knownHosts } }),
      );
      expect(wrong).toMatchObject({ code: 'host-key-mismatch', context: { host: 'hop' } });
      const closedPort = String(await freePort());
      const beyond = await refusal(config({ ProxyJump: 'hop', Port: closedPort }, { hop }));
      expect(beyond).toMatchObject({ code: 'host-unreachable' });
      expect(beyond.message).toContain(closedPort);
    } finally {
      await jump.stop();
    }
  });

  it('that leads in a circle ends', async () => {
    const error = await refusal(config({ ProxyJump: 'target' }));
    expect(error.code).toBe('invalid-input');
    expect(error.message).toMatch(/loop/);
  });

  it('is ProxyCommand, whose words are quoted when it fails', async () => {
    const session = await open(config({ ProxyCommand: 'socat - TCP:%h:%p' }));
    expect(await whoami(session)).toBe('root');
    const error = await refusal(config({ ProxyCommand: 'echo no way to %h >&2; exit 1' }));
    expect(error.code).toBe('host-unreachable');
    expect(error.message).toContain('no way to 127.0.0.1');
  });
});

describe('a session', () => {
  let session: SshSession;
  beforeAll(async () => {
    session = await open(config());
  });
  afterAll(async () => session?.close());

  it('runs commands with input, and gives output and exit code', async () => {
    const result = await session.run('cat; echo bad >&2; exit 7', { timeoutMs: 5000, input: 'good' });
    expect(result).toEqual({ code: 7, stdout: 'good', stderr: 'bad\n' });
  });

  it('keeps the first MiB of a long output', async () => {
    const { stdout } = await session.run('head -c 5000000 /dev/zero', { timeoutMs: 10_000 });
    expect(stdout.length).toBe(1024 * 1024);
  });

  it('ends a command at its deadline, and a process that writes with it', async () => {
    const mark = `3${process.pid}`;
    await expect(session.run(`exec yes ${mark}`, { timeoutMs: 200 })).rejects.toMatchObject({
      code: 'deadline-exceeded',
    });
    const isRunning = async () => (await session.run(`pgrep -fx 'yes ${mark}'`, { timeoutMs: 5000 })).stdout;
    await expect.poll(isRunning, { timeout: 5000 }).toBe('');
  });

  it('uploads a file with its mode, and tells of the progress', async () => {
    const content = Buffer.alloc(300_000, 'staghorn');
    writeFileSync(file('local'), content);
    const sftp = await session.sftp();
    const progress: number[] = [];
    await sftp.uploadFile(file('local'), file('remote'), {
      mode: 0o750,
      onProgress: (sent) => progress.push(sent),
    });
    expect(readFileSync(file('remote')).equals(content)).toBe(true);
    expect(progress.at(-1)).toBe(content.length);
    await expect(sftp.uploadFile(file('local'), '/nowhere/x', { mode: 0o600 })).rejects.toMatchObject({
      code: 'host-unfit',
    });
    const aborted = { mode: 0o600, signal: AbortSignal.abort() };
    await expect(sftp.uploadFile(file('local'), file('x'), aborted)).rejects.toMatchObject({
      code: 'cancelled',
    });
    sftp.close();
  });

  it('tells why it ended when the host goes, and fails what runs', async () => {
    const doomed = await open(config({ ProxyCommand: 'socat - TCP:%h:%p' }));
    const { stdout } = await doomed.run('echo $PPID', { timeoutMs: 5000 });
    const waiting = doomed.run('sleep 60', { timeoutMs: 60_000 });
    process.kill(Number(stdout), 'SIGKILL');
    await expect(waiting).rejects.toMatchObject({ code: 'host-unreachable' });
    expect(await doomed.closed).toMatchObject({ code: 'host-unreachable', context: { host: 'target' } });
    await expect(doomed.run('true', { timeoutMs: 5000 })).rejects.toMatchObject({ code: 'host-unreachable' });
  });
});
