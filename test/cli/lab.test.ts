import { describe, expect, it } from 'vitest';

import type { LabTools, Parts } from '../../src/cli/parts.ts';
import { runCli } from '../../src/cli/program.ts';
import { StaghornError } from '../../src/errors/index.ts';
import { FakeTerminal } from './fake-terminal.ts';
import { noParts } from './run.ts';

const hosts = [{ name: 'red', address: '10.0.0.1' }];
const vms = [{ name: 'one', host: 'red' }];

function labOf(given: Partial<LabTools>): Parts {
  const tools: LabTools = {
    up: async (_file, { onProgress }) => {
      onProgress({ step: 'boot', detail: '1 VM' });
      return { name: 'lab', experimentFile: '/run/lab/experiment.json', hosts, vms };
    },
    down: async () => true,
    status: async (name) => ({
      name,
      state: 'up',
      hosts: hosts.map((host) => ({ ...host, pid: 11 })),
      vms: vms.map((vm) => ({ ...vm, pid: null })),
      shaped: [],
    }),
    ...given,
  };
  return { ...noParts, loadLab: async () => tools };
}

async function run(line: string, parts: Parts, terminal = new FakeTerminal()) {
  const exit = await runCli(line.split(' '), terminal, parts);
  return { exit, out: terminal.text, err: terminal.err };
}

describe('staghorn lab', () => {
  it('up shows progress and what to do next', async () => {
    const { exit, out, err } = await run('lab up lab.yaml', labOf({}));
    expect([exit, err]).toEqual([0, 'boot: 1 VM\n']);
    expect(out).toBe('lab is up: 1 host, 1 VM\nnext: staghorn experiment add /run/lab/experiment.json\n');
    expect(JSON.parse((await run('lab up lab.yaml --json', labOf({}))).out)).toMatchObject({
      name: 'lab',
      vms,
    });
  });

  it('up is cancelled by Ctrl-C', async () => {
    const terminal = new FakeTerminal();
    const up: LabTools['up'] = async (_file, { signal }) => {
      terminal.signal('SIGINT');
      expect(signal.aborted).toBe(true);
      throw new StaghornError('cancelled', 'bringing the lab up was cancelled');
    };
    expect((await run('lab up lab.yaml', labOf({ up }), terminal)).exit).toBe(41);
    expect(terminal.hears('SIGINT')).toBe(false);
  });

  it('status shows what is shaped, and whether it really is', async () => {
    const device = { host: 'red', device: 'tap0-0', towards: 'VM one', shape: '8mbit' };
    const status: LabTools['status'] = async (name) => ({
      ...{ name, state: 'up', hosts: [], vms: [] },
      shaped: [
        { ...device, inPlace: true },
        { ...device, device: 'tap1-0', inPlace: false },
      ],
    });
    const { out } = await run('lab status lab', labOf({ status }));
    expect(out).toMatch(/^red +tap0-0 +VM one +8mbit$/m);
    expect(out).toMatch(/^red +tap1-0 +VM one +8mbit \(not in place\)$/m);
  });

  it('status shows hosts and VMs with their processes', async () => {
    const { out } = await run('lab status lab', labOf({}));
    expect(out).toMatch(/^lab is up\n\nHOST .*\nred +- +10\.0\.0\.1 +11\nred +one +- +-\n$/);
  });

  it('down says whether there was anything', async () => {
    expect((await run('lab down lab', labOf({}))).out).toBe('lab is down\n');
    expect((await run('lab down lab', labOf({ down: async () => false }))).out).toBe('lab was not up\n');
  });
});
