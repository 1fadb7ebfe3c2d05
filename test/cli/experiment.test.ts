import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';

import { StaghornError } from '../../src/errors/index.ts';
import { listen } from '../api/start.ts';
import { run } from './run.ts';

async function file(name: string, content: string): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'staghorn-cli-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  await writeFile(join(directory, name), content);
  return join(directory, name);
}

describe('staghorn experiment add', () => {
  it('reads YAML, JSON and stdin', async () => {
    const { service, url } = await listen();
    const yaml = await file('a.yaml', 'name: a\nhosts:\n  - name: red\n    vms: [one]\n');
    const json = await file('b.json', '{"name": "b", "hosts": [{"name": "red"}]}');
    expect(await run(url, `experiment add ${yaml}`)).toEqual({ exit: 0, out: 'added a: 1 host\n', err: '' });
    expect((await run(url, `experiment add ${json}`)).exit).toBe(0);
    expect((await run(url, 'experiment add -', { stdin: '{name: c, hosts: [{name: red}]}' })).exit).toBe(0);
    expect(service.getExperiment('a').hosts).toEqual([{ name: 'red', vms: ['one'] }]);
    expect(service.listExperiments().map(({ name }) => name)).toEqual(['lab', 'a', 'b', 'c']);
  });

  it('takes a name and hosts', async () => {
    const { service, url } = await listen();
    const ran = await run(
      url,
      'experiment add two --host red root@blue:2222 --ssh-config /tmp/config --json',
    );
    expect(JSON.parse(ran.out)).toMatchObject({ name: 'two', state: 'running' });
    expect(service.getExperiment('two').hosts).toEqual([
      { name: 'red', sshConfig: '/tmp/config' },
      { name: 'blue', user: 'root', port: 2222, sshConfig: '/tmp/config' },
    ]);
  });

  it('says where YAML is not YAML', async () => {
    const { url } = await listen();
    const path = await file('bad.yaml', 'name: a\nhosts: [\n');
    const { exit, err } = await run(url, `experiment add ${path}`);
    expect(exit).toBe(2);
    expect(err).toMatch(/^staghorn: not YAML or JSON: .*bad\.yaml:\d+:\d+: /);
  });

  it('shows all that the server finds wrong', async () => {
    const { url } = await listen();
    const path = await file('bad.yaml', 'name: ../a\nhosts: [{nam: red}]\n');
    const { exit, err } = await run(url, `experiment add ${path}`);
    expect(exit).toBe(2);
    expect(err.split('\n').filter((line) => line.startsWith('  body.'))).toHaveLength(3);
  });

  it('says what to do where the file is missing', async () => {
    const { url } = await listen();
    const { exit, err } = await run(url, 'experiment add /nonexistent.yaml');
    expect([exit, err]).toEqual([2, expect.stringContaining('--host')]);
  });
});

describe('staghorn experiment', () => {
  it('lists and shows in tables and in JSON', async () => {
    const { url } = await listen();
    const list = await run(url, 'experiment list');
    expect(list.out).toMatch(/^NAME +STATE +HOSTS .*\nlab +running +red,blue /);
    const show = await run(url, 'experiment show lab');
    expect(show.out).toMatch(
      /^blue +blue-vm +running +128 MiB +7\.2\.22 +fork,background,precopy,stop-copy$/m,
    );
    expect(show.out).toMatch(/^blue +blue-vm +shared +a private mapping$/m);
    expect(show.out).toMatch(/^red +red-vm +tap0 +52:54:00:00:00:01 +virtio-net-pci +1500 +br0 +10$/m);
    const json = await run(url, 'experiment show lab --json');
    expect(JSON.parse(json.out)).toMatchObject({
      experiment: { name: 'lab' },
      vms: [{}, {}],
      ports: [{}, {}],
    });
  });

  it('names the host of an error once', async () => {
    const { service, url } = await listen();
    service.hostError = new StaghornError('host-unreachable', 'connection refused', {
      context: { host: 'red' },
    });
    expect(await run(url, 'experiment show lab')).toEqual({
      exit: 10,
      out: '',
      err: 'staghorn: red: connection refused\n',
    });
  });

  it.each([
    ['pause', 'time stands still in lab\n'],
    ['resume', 'time goes on in lab\n'],
    ['remove', 'removed lab\n'],
  ])('does %s', async (verb, out) => {
    const { url } = await listen();
    expect(await run(url, `experiment ${verb} lab`)).toMatchObject({ exit: 0, out });
  });

  it('exits by the code of the error', async () => {
    const { url } = await listen();
    expect(await run(url, 'experiment show no')).toEqual({
      exit: 4,
      out: '',
      err: 'staghorn: There is no experiment "no"\n',
    });
    const json = await run(url, 'experiment show no --json');
    expect([json.exit, json.out]).toEqual([4, '']);
    expect(JSON.parse(json.err)).toMatchObject({
      type: '/problems/not-found',
      status: 404,
      code: 'not-found',
    });
  });
});
