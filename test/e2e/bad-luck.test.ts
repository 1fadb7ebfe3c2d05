import { execFile } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';

import { Guests } from '../../src/demo/guests.ts';
import { labStatus, runInHost, type Lab } from '../../src/lab/index.ts';
import { vmFiles } from '../../src/lab/paths.ts';
import { processesIn, until } from '../../src/lab/processes.ts';
import { experiment as experimentSchema, type Operation } from '../../src/protocol/resources.ts';
import { vm as vmSchema } from '../../src/protocol/vm.ts';
import { QmpClient } from '../../src/qmp/index.ts';
import { BarrierWalk } from './barrier-walk.ts';
import { Bench, hostPath, runStates, startLab, takeDown } from './harness.ts';
import { agentBundle, isSealed, partialSnapshots, storePath, untilSettled } from './host-view.ts';

const boundMs = 15_000;

describe('bad luck', { timeout: 60_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  const cleanups: (() => unknown)[] = [];

  beforeAll(async () => {
    lab = await startLab('luck', [
      { name: 'a', host: 'h1' },
      { name: 'b', host: 'h1' },
      { name: 'c', host: 'h2' },
    ]);
    bench = await Bench.start(lab);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
  });
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
  });

  /** Registers the lab under another name, with other ways to its hosts. */
  async function register(name: string, changes: Record<string, Record<string, unknown>>): Promise<string> {
    const { hosts } = JSON.parse(await readFile(lab.experimentFile, 'utf8')) as { hosts: { name: string }[] };
    const body = { name, hosts: hosts.map((host) => ({ ...host, ...changes[host.name] })) };
    await bench.server.client.json('POST', '/v1/experiments', experimentSchema, { body });
    cleanups.push(() => bench.server.client.send('DELETE', `/v1/experiments/${name}`));
    return `/v1/experiments/${name}`;
  }

  async function failedSnapshot(path = bench.path): Promise<NonNullable<Operation['error']>> {
    const ended = await bench.operate('POST', `${path}/snapshots`, {});
    expect(ended.state).toBe('failed');
    return ended.error!;
  }

  /** Nothing stands still, and nothing of a snapshot is left. */
  async function expectUntouched(): Promise<void> {
    await untilSettled(lab, boundMs);
    expect(await runStates(lab)).toEqual(['running', 'running', 'running']);
    expect(await partialSnapshots(lab)).toEqual([]);
  }

  async function qemuPid(vm: string): Promise<number> {
    return (await labStatus(lab.name)).vms.find(({ name }) => name === vm)!.pid!;
  }

  async function sshConfig(change: (config: string) => string): Promise<string> {
    const path = join(lab.stateDirectory, `ssh_config.${cleanups.length}`);
    await writeFile(path, change(await readFile(lab.sshConfig, 'utf8')));
    return path;
  }

  async function hostProcess(host: string, matches: (commandLine: string) => boolean): Promise<number> {
    const { namespace } = lab.hosts.find(({ name }) => name === host)!;
    for (const pid of await processesIn(`/run/netns/${namespace}`)) {
      const commandLine = (await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '')).replaceAll(
        '\0',
        ' ',
      );
      if (matches(commandLine)) return pid;
    }
    throw new Error(`host ${host} has no such process`);
  }

  describe('on the way to a host', () => {
    it('names a host whose name does not resolve', async () => {
      const error = await failedSnapshot(await register('nowhere', { h2: { ssh: 'no-such-host.invalid' } }));
      expect(error).toMatchObject({ code: 'host-unreachable', host: 'h2' });
      expect(error.detail).toMatch(/no-such-host\.invalid/);
    });

    it('names a host where nothing listens', async () => {
      const error = await failedSnapshot(await register('closed', { h2: { port: 9 } }));
      expect(error).toMatchObject({ code: 'host-unreachable', host: 'h2' });
      expect(error.detail).toMatch(/port 9\): connect ECONNREFUSED/);
    });

    it('names a host whose key is not the known one', async () => {
      const [first, second] = (await readFile(lab.knownHosts, 'utf8')).trim().split('\n');
      const key = (line: string) => line.split(' ').slice(1).join(' ');
      const knownHosts = join(lab.stateDirectory, 'known_hosts.swapped');
      await writeFile(knownHosts, `${first!.split(' ')[0]} ${key(second!)}\n${second}\n`);
      const path = await sshConfig((config) => config.replaceAll(lab.knownHosts, knownHosts));
      const error = await failedSnapshot(await register('impostor', { h1: { sshConfig: path } }));
      expect(error).toMatchObject({ code: 'host-key-mismatch', host: 'h1' });
      await expectUntouched();
    });

    it('names a host whose sshd does not answer', async () => {
      const sshd = await hostProcess('h1', (commandLine) => /sshd.*(-f|listener)/.test(commandLine));
      const path = await sshConfig((config) =>
        config.replaceAll('  User root', '  User root\n  ConnectTimeout 1'),
      );
      process.kill(sshd, 'SIGSTOP');
      cleanups.push(() => process.kill(sshd, 'SIGCONT'));
      const error = await failedSnapshot(await register('silent', { h1: { sshConfig: path } }));
      expect(error).toMatchObject({ code: 'host-unreachable', host: 'h1' });
      expect(error.detail).toMatch(/no answer within 1000 ms/);
      await expectUntouched();
    });

    it('refuses a second experiment of the same name', async () => {
      await expect(bench.register()).rejects.toMatchObject({ code: 'conflict' });
    });

    it('says where a definition does not parse', async () => {
      const send = (body: unknown) =>
        bench.server.client.json('POST', '/v1/experiments', experimentSchema, { body });
      await expect(send({ name: 'x', hosts: [{ ssh: 'h1' }] })).rejects.toMatchObject({
        code: 'invalid-input',
        message: expect.stringMatching(/hosts\[0\]\.name/) as string,
      });
    });

    it('says that experiment.json is not JSON, and where', async () => {
      const file = join(lab.stateDirectory, 'broken.json');
      await writeFile(file, '{ "name": "x",\n  "hosts": [ }\n');
      const { code, stderr } = await staghorn(['experiment', 'add', file]);
      expect(code).toBe(2);
      expect(stderr).toMatch(/broken\.json.*(line|:)\s*2/s);
    });
  });

  /** The command line, spoken to the bench's server. */
  function staghorn(args: string[]): Promise<{ code: number | string; stderr: string }> {
    const main = join(import.meta.dirname, '../../dist/cli/main.js');
    return new Promise((resolve) => {
      execFile(
        process.execPath,
        [main, ...args, '--url', bench.server.client.url],
        (error, _stdout, stderr) => resolve({ code: error?.code ?? 0, stderr }),
      );
    });
  }

  it('names a host whose Open vSwitch is gone, and is over when it is back', async () => {
    process.kill(await hostProcess('h2', (line) => line.startsWith('ovsdb-server')), 'SIGKILL');
    cleanups.push(() => startDatabase());
    const error = await failedSnapshot();
    expect(error).toMatchObject({ code: 'host-unfit', host: 'h2' });
    expect(error.detail).toMatch(/host h2: Open vSwitch does not answer.*is ovsdb-server running/);
    await expectUntouched();
    await startDatabase();
    cleanups.pop();
    expect(await bench.snapshot()).toBeTruthy();
  });

  async function startDatabase(): Promise<void> {
    await runInHost({ lab: lab.name, host: 'h2' }, [
      'ovsdb-server',
      ...['/etc/openvswitch/conf.db', '--remote=punix:/run/openvswitch/db.sock'],
      ...['--remote=db:Open_vSwitch,Open_vSwitch,manager_options'],
      ...['--pidfile', '--detach', '--no-chdir', '--log-file', '-vconsole:off'],
    ]);
  }

  describe('with a QMP socket', () => {
    it('that somebody else holds, the VM is named', async () => {
      const holder = await QmpClient.connect({ path: hostPath(lab, 'h1', vmFiles('a').qmp) });
      const error = await failedSnapshot().finally(() => holder.close());
      expect(error).toMatchObject({ code: 'vm-unfit', host: 'h1', vm: 'a' });
      expect(error.detail).toMatch(/VM a cannot be controlled: .*another client probably holds/);
      await expectUntouched();
    });

    it('that does not answer because its QEMU is stopped, the VM is named', async () => {
      const pid = await qemuPid('b');
      process.kill(pid, 'SIGSTOP');
      const error = await failedSnapshot().finally(() => process.kill(pid, 'SIGCONT'));
      expect(error).toMatchObject({ code: 'vm-unfit', host: 'h1', vm: 'b' });
      expect(error.detail).toMatch(/VM b cannot be controlled: .*stopped by a signal \(SIGSTOP\)/);
      await expectUntouched();
    });
  });

  describe('in the middle of a snapshot', () => {
    async function walkTo(step: 'arm' | 'drain' | 'store' | 'commit'): Promise<BarrierWalk> {
      const walk = await BarrierWalk.connect({
        hosts: ['h1', 'h2'],
        sshConfig: lab.sshConfig,
        bundle: agentBundle,
        leaseMs: 3_000,
      });
      cleanups.push(() => walk.close());
      await walk.to(step);
      return walk;
    }

    it('a QEMU that hangs does not keep the others from going on, and goes on itself later', async () => {
      const walk = await walkTo('arm');
      const before = await bench.moment();
      const pid = await qemuPid('a');
      process.kill(pid, 'SIGSTOP');
      const resume = () => process.kill(pid, 'SIGCONT');
      cleanups.push(resume);
      await expect(walk.to('cut')).rejects.toMatchObject({
        message: expect.stringMatching(/VM a: command stop/) as string,
      });
      const others = new Guests({ ...lab, vms: lab.vms.filter(({ name }) => name !== 'a') });
      await others.waitForReports(await others.offsets(), 1);
      resume();
      await expectUntouched();
      await bench.guests.waitForReports(await bench.guests.offsets(), 2);
      expect(await bench.datagramFlaws(await bench.guests.judge([{}], before))).toEqual([]);
    });

    it('what one host has sealed goes when another fails to', async () => {
      const walk = await walkTo('store');
      await walk.commitOn('h1');
      expect(isSealed(lab, 'h1', walk.snapshot)).toBe(true);
      await walk.abort('h2 cannot seal its part');
      expect(isSealed(lab, 'h1', walk.snapshot)).toBe(false);
      await expectUntouched();
    });

    it('what all hosts have sealed stays when the controller goes', async () => {
      const walk = await walkTo('commit');
      await walk.close();
      for (const { name } of lab.hosts) {
        expect(isSealed(lab, name, walk.snapshot)).toBe(true);
        await rm(join(hostPath(lab, name, storePath), walk.snapshot), { recursive: true });
      }
      await expectUntouched();
    });

    for (const [step, when] of [
      ['arm', 'before the cut'],
      ['drain', 'while time stands still'],
    ] as const) {
      it(`a VM that dies ${when} ends the snapshot, and the others run on`, async () => {
        const good = await bench.snapshot();
        cleanups.push(() => restore(good));
        const others = new Guests({ ...lab, vms: lab.vms.filter(({ name }) => name !== 'a') });
        const timeLine = await others.offsets();
        await others.waitForReports(timeLine, 1);
        await bench.moment();
        const before = await others.offsets();
        const walk = await walkTo(step);
        process.kill(await qemuPid('a'), 'SIGKILL');
        await until(async () => walk.lost.has('h1'), { timeoutMs: boundMs });
        expect(walk.lost.get('h1')).toMatch(/VM a ended/);
        await untilSettled(lab, boundMs);
        expect(await runStates(lab)).toEqual(['gone', 'running', 'running']);
        expect(await partialSnapshots(lab)).toEqual([]);
        await others.waitForReports(await others.offsets(), 2);
        const judgement = await others.judge([{ from: timeLine }], before);
        expect(await bench.datagramFlaws(judgement)).toEqual([]);
      });
    }
  });

  async function restore(snapshot: string): Promise<void> {
    const atRestore = await bench.guests.offsets();
    const ended = await bench.operate('POST', `/v1/snapshots/${snapshot}/restore`, { replace: true });
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    await bench.guests.waitForReports(atRestore, 1);
    await expectUntouched();
  }

  describe('with a full disk', () => {
    /** Replaces a host's snapshot store by a small file system of its own. */
    async function smallStore(mebibytes: number): Promise<void> {
      const at = { lab: lab.name, host: 'h1' };
      await runInHost(at, ['mount', '-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', storePath]);
      cleanups.push(() => runInHost(at, ['umount', storePath]));
    }
    const inStore = (argv: string[]) => runInHost({ lab: lab.name, host: 'h1' }, argv);

    it('says how much is needed before anything is touched', async () => {
      await smallStore(64);
      const error = await failedSnapshot();
      expect(error).toMatchObject({ code: 'disk-full', host: 'h1' });
      expect(error.detail).toMatch(/host h1: the snapshot may need 2\d\d MiB and 6\d MiB are free/);
      await expectUntouched();
      expect(await inStore(['ls', '-A', storePath])).toBe('');
    });

    for (const method of ['fork', 'stop-copy'] as const) {
      it(`that fills up during a save by ${method}, ends the snapshot and leaves nothing of it`, async () => {
        await smallStore(300);
        const walk = await BarrierWalk.connect({
          ...{ hosts: ['h1', 'h2'], sshConfig: lab.sshConfig, bundle: agentBundle, leaseMs: 10_000, method },
        });
        cleanups.push(() => walk.close());
        await walk.to('arm');
        await inStore(['fallocate', '-l', '295M', join(storePath, 'other')]);
        await expect(walk.to('commit')).rejects.toMatchObject({
          code: 'disk-full',
          message: expect.stringMatching(/VM [ab]: .*(ENOSPC|No space left)/i) as string,
        });
        await walk.abort('the disk is full');
        await expectUntouched();
        expect(await inStore(['ls', '-A', storePath])).toBe('other\n');
        expect(isSealed(lab, 'h2', walk.snapshot)).toBe(false);
      });
    }
  });

  describe('with a VM that cannot be snapshotted', () => {
    const qemu = [
      'qemu-system-x86_64',
      '-M',
      'pc,accel=tcg',
      '-m',
      '16',
      '-nodefaults',
      '-display',
      'none',
      '-S',
    ];

    async function startExtra(name: string, args: string[]): Promise<void> {
      const at = { lab: lab.name, host: 'h1' };
      const pidFile = `/run/staghorn-lab/${name}.pid`;
      await runInHost(at, [...qemu, '-name', name, '-daemonize', '-pidfile', pidFile, ...args]);
      cleanups.push(async () => {
        await runInHost(at, ['sh', '-c', `kill -9 "$(cat ${pidFile})"`]);
      });
    }

    const qmpOf = (name: string) => ['-qmp', `unix:/run/staghorn-lab/${name}.qmp,server=on,wait=off`];

    async function expectRefused(name: string, reason: RegExp): Promise<void> {
      const error = await failedSnapshot();
      expect(error).toMatchObject({ code: 'vm-unfit', host: 'h1' });
      expect(error.detail).toMatch(reason);
      const vms = await bench.server.client.json(
        'GET',
        `${bench.path}/vms`,
        z.array(vmSchema.extend({ host: z.string() })),
      );
      expect(vms.find((vm) => vm.name === name)?.obstacles.join()).toMatch(/./);
      await untilSettled(lab, boundMs);
      expect(await partialSnapshots(lab)).toEqual([]);
    }

    it('says that it has no QMP socket', async () => {
      await startExtra('mute', []);
      await expectRefused('mute', /VM mute cannot be controlled: it has no QMP socket; launch it with -qmp/);
    });

    it('says what is with its disk that cannot be kept', async () => {
      const image = hostPath(lab, 'h1', '/run/staghorn-lab/disk.img');
      await writeFile(image, Buffer.alloc(1024 * 1024));
      const drive = [
        ...['-object', 'throttle-group,id=slow'],
        ...['-blockdev', 'driver=file,filename=/run/staghorn-lab/disk.img,node-name=f'],
        ...['-blockdev', 'driver=throttle,throttle-group=slow,node-name=t,file=f'],
        ...['-device', 'virtio-blk-pci,drive=t'],
      ];
      await startExtra('disky', [...qmpOf('disky'), ...drive]);
      await expectRefused('disky', /VM disky: .* is behind a block driver \(throttle\)/);
    });

    it('says that its NIC is not a tap', async () => {
      await startExtra('user', [...qmpOf('user'), '-nic', 'user,model=virtio-net-pci']);
      await expectRefused('user', /VM user: NIC .* is of type user: its frames cannot be held/);
    });
  });

  it('refuses a snapshot where the QEMU of its VMs does not run, naming the version that it needs', async () => {
    const id = await bench.snapshot();
    const wrapper = hostPath(lab, 'h1', '/run/staghorn-lab/other-qemu');
    await writeFile(wrapper, '#!/bin/sh\necho "QEMU emulator version 6.1.0 (Another)"\n', { mode: 0o755 });
    const exe = (
      await runInHost({ lab: lab.name, host: 'h1' }, ['readlink', '-f', '/usr/bin/qemu-system-x86_64'])
    ).trim();
    await runInHost({ lab: lab.name, host: 'h1' }, ['mount', '--bind', '/run/staghorn-lab/other-qemu', exe]);
    cleanups.push(() => runInHost({ lab: lab.name, host: 'h1' }, ['umount', exe]));
    const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`, { replace: true });
    expect(ended).toMatchObject({ state: 'failed', error: { code: 'snapshot-unfit', host: 'h1' } });
    expect(ended.error?.detail).toMatch(/saved by QEMU 7\.\d+\.\d+, and .* does not run here/);
    await expectUntouched();
  });
});
