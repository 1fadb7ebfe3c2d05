import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { readSshConfigText } from './ssh-config-text.ts';
import { resolveSshSettings, type SshTarget } from './ssh-settings.ts';

const directory = mkdtempSync(join(tmpdir(), 'staghorn-settings-'));
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(directory, { recursive: true });
});

function resolve(text: string, target: Partial<SshTarget> = {}) {
  const configFile = join(directory, 'config');
  writeFileSync(configFile, text);
  return resolveSshSettings({ host: 'h', configFile, ...target });
}

describe('ssh_config', () => {
  it('gives the first value said, and several identity files in order', () => {
    const settings = resolve(
      'Host h\n HostName %h.example.org\n port 2222\n IdentityFile ~/.ssh/%r-%n\n' +
        'Host *\n Port 23\n User u\n IdentityFile "%d/with space"\n IdentitiesOnly yes\n',
    );
    expect(settings).toMatchObject({
      hostName: 'h.example.org',
      port: 2222,
      user: 'u',
      identitiesOnly: true,
    });
    expect(settings.identityFiles.map(({ path }) => path)).toEqual([
      join(homedir(), '.ssh/u-h'),
      join(homedir(), 'with space'),
    ]);
  });

  it('is overruled by what the caller says', () => {
    const target = { user: 'me', port: 5, identity: '/k' };
    const settings = resolve('Host *\n Port 23\n User u\n IdentityFile /other\n', target);
    expect(settings).toMatchObject({ user: 'me', port: 5 });
    expect(settings.identityFiles.map(({ path }) => path)).toEqual(['/k', '/other']);
  });

  it('has defaults where it says nothing', () => {
    const settings = resolve('');
    expect(settings).toMatchObject({ hostName: 'h', port: 22, proxyJump: [], identitiesOnly: false });
    expect(settings.identityFiles.every(({ named }) => !named)).toBe(true);
    expect(settings.knownHostsFiles).toContain('/etc/ssh/ssh_known_hosts');
    expect(settings.connectTimeoutMs).toBeUndefined();
  });

  it('gives known_hosts files, time-outs and keep-alives', () => {
    const settings = resolve(
      'UserKnownHostsFile /a ~/b\nGlobalKnownHostsFile none\nConnectTimeout 7\nServerAliveInterval 3\nServerAliveCountMax 2\n',
    );
    expect(settings.knownHostsFiles).toEqual(['/a', join(homedir(), 'b')]);
    expect(settings).toMatchObject({ connectTimeoutMs: 7000, aliveIntervalMs: 3000, aliveCountMax: 2 });
  });

  it('gives the agent by path, by variable, or none', () => {
    vi.stubEnv('SSH_AUTH_SOCK', '/run/agent');
    vi.stubEnv('OTHER_AGENT', '/run/other');
    expect(resolve('').agentSocket).toBe('/run/agent');
    expect(resolve('IdentityAgent none\n').agentSocket).toBeUndefined();
    expect(resolve('IdentityAgent $OTHER_AGENT\n').agentSocket).toBe('/run/other');
    expect(resolve('IdentityAgent ${OTHER_AGENT}.x\n').agentSocket).toBe('/run/other.x');
  });

  it('leads through the proxy that is said first', () => {
    expect(resolve('ProxyJump a,b:22\nProxyCommand nc %h %p\n')).toMatchObject({
      proxyJump: ['a', 'b:22'],
      proxyCommand: undefined,
    });
    const settings = resolve('ProxyCommand nc %h %p\nProxyJump a\n');
    expect(settings).toMatchObject({ proxyJump: [], proxyCommand: 'nc h 22' });
    expect(resolve('ProxyJump none\n').proxyJump).toEqual([]);
  });

  it('says what it cannot make sense of', () => {
    expect(() => resolve('Port many\n')).toThrow(/port is "many"/);
    expect(() => resolve('IdentityFile %Z\n')).toThrow(/%Z/);
    expect(() => resolveSshSettings({ host: 'h', configFile: '/nowhere' })).toThrow(
      /cannot read .*\/nowhere/,
    );
  });

  it('includes files in their place, and goes on in the section around them', () => {
    mkdirSync(join(directory, 'conf.d'));
    writeFileSync(join(directory, 'conf.d/1.conf'), 'Host other\n User wrong\n');
    writeFileSync(join(directory, 'conf.d/2.conf'), 'Host h\n User included\n');
    const settings = resolve(`Host h\n Include ${directory}/conf.d/*.conf\n Port 9\nHost *\n User late\n`);
    expect(settings).toMatchObject({ user: 'included', port: 9 });
  });

  it('is the user’s file, then the system’s', () => {
    const home = join(directory, 'home');
    mkdirSync(join(home, '.ssh'), { recursive: true });
    writeFileSync(join(home, '.ssh/config'), 'Host x\n Include more\n');
    writeFileSync(join(home, '.ssh/more'), 'User from-more\n');
    expect(readSshConfigText(undefined, home)).toMatch(
      /Host x\nHost x\nUser from-more\n\nHost x[^]*Match all/,
    );
  });

  it('may not include itself', () => {
    expect(() => resolve(`Include ${directory}/config\n`)).toThrow(/deeper than/);
  });
});
