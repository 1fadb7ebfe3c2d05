import { describe, expect, it } from 'vitest';

import { eventually } from '../api/eventually.ts';
import { runCli } from '../../src/cli/program.ts';
import { StaghornError } from '../../src/errors/index.ts';
import { listen } from '../api/start.ts';
import { FakeTerminal } from './fake-terminal.ts';
import { noParts, run } from './run.ts';

describe('staghorn restore', () => {
  it('restores onto nothing without asking', async () => {
    const { service, url } = await listen();
    service.vmStatus = 'gone';
    const { id } = service.addSnapshot();
    expect(await run(url, `restore ${id} --no-verify`)).toMatchObject({
      exit: 0,
      out: `restored ${id}: 2 VMs in 123 ms, 1 frame delivered\n`,
    });
    expect(service.calls).toEqual([
      `restoreSnapshot ${id} {"replace":false,"verify":false,"paused":false,"clock":"hidden","dryRun":false}`,
    ]);
  });

  it('tells what is not as it was', async () => {
    const { service, url } = await listen();
    service.vmStatus = 'gone';
    service.restoreWarnings = ['host red: bridge br0 was gone'];
    const { id } = service.addSnapshot();
    expect((await run(url, `restore ${id}`)).out).toMatch(
      /delivered\nwarning: host red: bridge br0 was gone\n$/,
    );
    expect(JSON.parse((await run(url, `restore ${id} --json`)).out)).toMatchObject({
      warnings: service.restoreWarnings,
    });
  });

  it('destroys running VMs with --force', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    expect((await run(url, `restore ${id} --force --json`)).exit).toBe(0);
    expect(service.calls).toEqual([
      `restoreSnapshot ${id} {"replace":true,"verify":true,"paused":false,"clock":"hidden","dryRun":false}`,
    ]);
  });

  it('tells a program about --force and changes nothing', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    const expected = 'staghorn: 2 VMs of lab are running; --force destroys them\n';
    expect(await run(url, `restore ${id}`)).toEqual({ exit: 5, out: '', err: expected });
    expect(service.listOperations()).toEqual([]);
  });

  it.each([
    ['y\n', 0],
    ['yes\n', 0],
    ['n\n', 41],
    ['\n', 41],
    ['', 41],
  ])('asks a person, and takes %j for exit code %d', async (answer, exit) => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    const terminal = new FakeTerminal({ env: { STAGHORN_URL: url }, interactive: true });
    const running = runCli(['restore', id], terminal, noParts);
    await eventually(() => {
      expect(terminal.err).toContain('2 VMs of lab are running and will be destroyed. Restore? [y/N] ');
    });
    terminal.stdin.end(answer);
    expect(await running).toBe(exit);
    expect(service.listOperations()).toHaveLength(exit === 0 ? 1 : 0);
  });

  it('asks also where running VMs are found only on the way', async () => {
    const { service, url } = await listen();
    service.finishAtOnce = false;
    service.vmStatus = 'gone';
    const { id } = service.addSnapshot();
    const running = run(url, `restore ${id}`);
    await eventually(() => {
      expect(service.operations.readers).toBe(1);
    });
    service.operations.end('op-1', { error: new StaghornError('conflict', 'a VM runs') });
    expect(await running).toMatchObject({ exit: 5, err: expect.stringContaining('--force') as string });
  });

  it('hands every choice on', async () => {
    const { service, url } = await listen();
    service.vmStatus = 'gone';
    const { id } = service.addSnapshot();
    const choices = '--vm red-vm --vm blue-vm --map red=blue --paused --clock advance';
    const { out } = await run(url, `restore ${id} ${choices}`);
    expect(JSON.parse(service.calls[0]!.slice(`restoreSnapshot ${id} `.length))).toMatchObject({
      vms: ['red-vm', 'blue-vm'],
      map: { red: 'blue' },
      paused: true,
      clock: 'advance',
    });
    expect(out).toBe(
      `restored ${id}: 2 VMs in 123 ms; time stays stopped until: staghorn experiment resume lab\n`,
    );
  });

  it('asks nobody before a dry run, and tells what it would do', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    expect(await run(url, `restore ${id} --dry-run`)).toMatchObject({
      exit: 0,
      out: `${id} fits: 2 VMs would be restored\n`,
    });
  });

  it.each(['--map red', '--map red=', '--map a=b=c', '--clock tomorrow'])('refuses %s', async (choice) => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    expect((await run(url, `restore ${id} ${choice}`)).exit).toBe(2);
    expect(service.calls).toEqual([]);
  });
});
