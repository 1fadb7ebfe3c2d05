import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { labStatus, runInHost, type Lab } from '../../src/lab/index.ts';
import { outside, vmFiles } from '../../src/lab/paths.ts';
import { experiment } from '../../src/protocol/resources.ts';
import { type Bench, hostPath, runStates, startBench, stopBench } from './harness.ts';
import { pidsOf, storePath, untilCount, untilSettled } from './host-view.ts';

const asBefore = 'nothing was touched: the experiment is as it was before';
const stopped = 'none of them runs';

describe('a restore that fails', { timeout: 120_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let id: string;

  beforeAll(async () => {
    ({ lab, bench } = await startBench(`name: failures-${process.pid}
management: 198.18.118.0/24
underlay: 198.18.119.0/24
hosts: [{ name: h1 }, { name: h2 }]
vms:
  - { name: a, host: h1, memoryMiB: 96 }
  - { name: b, host: h2, memoryMiB: 96 }
`));
    id = await bench.snapshot();
  }, 300_000);
  afterAll(async () => {
    await stopBench(bench, lab);
  }, 60_000);

  const pids = async () => (await labStatus(lab.name)).vms.map(({ pid }) => pid);
  const restore = (body: object) => bench.operate('POST', `/v1/snapshots/${id}/restore`, body);
  const stored = (file: string) => join(hostPath(lab, 'h1', storePath), id, file);
  const on = (host: string, ...command: string[]) => runInHost({ lab: lab.name, host }, command);

  /** Fails at the check: whatever runs goes on. */
  async function expectRefused(code: string, words: RegExp): Promise<void> {
    const before = await pids();
    const dry = await restore({ dryRun: true });
    const real = await restore({ replace: true });
    for (const { state, error } of [dry, real]) {
      expect(state).toBe('failed');
      expect(error?.code).toBe(code);
      expect(error?.detail).toMatch(words);
      expect(error?.detail).toContain(asBefore);
    }
    expect(await pids()).toEqual(before);
    expect(await runStates(lab)).toEqual(['running', 'running']);
  }

  /** Fails later: no VM of it is left, and it can be restored again. */
  async function expectStopped(ended: Awaited<ReturnType<typeof restore>>, words: RegExp): Promise<void> {
    expect(ended.state).toBe('failed');
    expect(ended.error?.detail).toMatch(words);
    expect(ended.error?.detail).toContain(stopped);
    await untilSettled(lab, 20_000);
    expect([await pidsOf(lab, 'h1', 'qemu'), await pidsOf(lab, 'h2', 'qemu')]).toEqual([[], []]);
    expect((await bench.server.client.json('GET', bench.path, experiment)).state).toBe('running');
  }

  it('for a file that is gone or changed leaves everything as it was', async () => {
    const path = stored('a.state');
    const content = await readFile(path);
    await rm(path);
    await expectRefused('snapshot-damaged', /a\.state/);
    await writeFile(path, Buffer.concat([content.subarray(0, -1), Buffer.from([0x55])]), { mode: 0o600 });
    await expectRefused('snapshot-damaged', /a\.state/);
    await writeFile(path, content, { mode: 0o600 });
  });

  it('for a socket that somebody else listens at leaves everything as it was', async () => {
    const before = await pids();
    process.kill(before[0]!, 'SIGKILL');
    const { qmp } = vmFiles('a');
    const code = `require('net').createServer().listen(${JSON.stringify(qmp)}, () => console.log('up'))`;
    const listener = `rm -f ${qmp}; ${process.execPath} -e "${code.replaceAll('"', '\\"')}" >/run/listener 2>&1 & echo $!; until [ -s /run/listener ]; do sleep 0.02; done`;
    const pid = (await on('h1', 'sh', '-c', listener)).trim();
    try {
      const { error } = await restore({ replace: true });
      expect(error).toMatchObject({ code: 'snapshot-unfit', host: 'h1' });
      expect(error?.detail).toMatch(/VM a: another process listens at its QMP socket/);
      expect((await pids())[1]).toBe(before[1]);
    } finally {
      await on('h1', 'sh', '-c', `kill -KILL ${pid}; rm -f /run/listener`);
    }
    expect(await restore({ replace: true })).toMatchObject({ state: 'succeeded', error: null });
  });

  it('because a QEMU does not start leaves no VM running', async () => {
    // QEMU cannot write its process id into a directory.
    const pidFile = outside(lab.name, 'h1', vmFiles('a').pid);
    const content = await readFile(pidFile, 'utf8');
    await rm(pidFile);
    // One that ran would be put back in place.
    process.kill((await pidsOf(lab, 'h1', 'qemu'))[0]!, 'SIGKILL');
    await untilCount(lab, 'h1', 'qemu', 0);
    await on('h1', 'mkdir', vmFiles('a').pid);
    try {
      await expectStopped(await restore({ replace: true }), /VM a did not start/);
    } finally {
      await on('h1', 'rmdir', vmFiles('a').pid);
      await writeFile(pidFile, content);
    }
    expect(await restore({})).toMatchObject({ state: 'succeeded', error: null });
  });

  it('because a QEMU is killed while time stands still leaves no VM running', async () => {
    expect(await restore({ replace: true, paused: true })).toMatchObject({ state: 'succeeded', error: null });
    process.kill((await pidsOf(lab, 'h1', 'qemu'))[0]!, 'SIGKILL');
    const ended = await bench.operate('POST', `${bench.path}/resume`);
    await expectStopped(ended, /VM a/);
    expect(await restore({})).toMatchObject({ state: 'succeeded', error: null });
  });

  it('does not fail for a bridge that is gone: it is made again', async () => {
    await on('h1', 'ovs-vsctl', 'del-br', 'br-int');
    const ended = await restore({ replace: true });
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    expect(await on('h1', 'ovs-vsctl', 'list-br')).toMatch(/br-int/);
  });
});
