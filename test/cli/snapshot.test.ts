import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';

import { eventually } from '../api/eventually.ts';
import { runCli } from '../../src/cli/program.ts';
import { StaghornError } from '../../src/errors/index.ts';
import { listen } from '../api/start.ts';
import { FakeTerminal } from './fake-terminal.ts';
import { noParts, run } from './run.ts';

describe('staghorn snapshot', () => {
  it('shows progress as lines and the snapshot as text', async () => {
    const { service, url } = await listen();
    const { exit, out, err } = await run(url, 'snapshot lab --name before --method fork');
    expect([exit, err]).toEqual([0, 'snapshot: snapshot begins\n']);
    expect(out).toMatch(/^paused for +9 ms to 9\.00 ms$/m);
    expect(out).toMatch(/^skew +350 µs \(± 20 µs\)$/m);
    expect(out).toMatch(/^stored +256 MiB$/m);
    expect(service.calls.join()).toMatch('createSnapshot lab {"name":"before","method":"fork"');
  });

  it('passes labels on, several of them', async () => {
    const { service, url } = await listen();
    await run(url, 'snapshot lab --label branch=main --label note=a=b --label keep');
    expect(service.calls.join()).toContain('"labels":{"branch":"main","note":"a=b","keep":""}');
  });

  it('takes them again and again, shows it and stops it', async () => {
    const { service, url } = await listen();
    const { out } = await run(url, 'snapshot lab --every 5m --keep 12');
    expect(out).toMatch(/^every +300 s$/m);
    expect(service.getRolling('lab')).toMatchObject({ everySeconds: 300, keep: 12 });
    expect((await run(url, 'rolling')).out).toMatch(/^lab +300 s +12/m);
    expect((await run(url, 'rolling lab --stop')).exit).toBe(0);
    expect(service.listRolling()).toEqual([]);
    expect((await run(url, 'snapshot lab --every 5m')).exit).toBe(2);
    expect((await run(url, 'snapshot lab --every soon --keep 1')).exit).toBe(2);
  });

  it('prints one JSON document and nothing else with --json', async () => {
    const { service, url } = await listen();
    const { exit, out, err } = await run(url, 'snapshot lab --json');
    expect([exit, err]).toEqual([0, '']);
    expect(JSON.parse(out)).toEqual(service.listSnapshots()[0]);
  });

  it('fails as the operation fails', async () => {
    const { service, url } = await listen();
    service.finishAtOnce = false;
    const running = run(url, 'snapshot lab');
    await eventually(() => {
      expect(service.operations.readers).toBe(1);
    });
    const context = { host: 'red', vm: 'red-vm' };
    service.operations.end('op-1', {
      error: new StaghornError('vm-failed', 'QMP does not answer', { context }),
    });
    expect(await running).toEqual({ exit: 21, out: '', err: 'staghorn: red, red-vm: QMP does not answer\n' });
  });

  it('says by exit code 5 that another one is going on', async () => {
    const { service, url } = await listen();
    service.getExperiment('lab').state = 'snapshotting';
    expect((await run(url, 'snapshot lab')).exit).toBe(5);
  });
});

describe('staghorn snapshots --tree', () => {
  it('shows which came from which, and where ways part', async () => {
    const { service, url } = await listen();
    const root = service.addSnapshot({ name: 'root' });
    const line = service.addSnapshot({ parent: root.id });
    const left = service.addSnapshot({ parent: line.id, labels: { branch: 'left' } });
    const below = service.addSnapshot({ parent: left.id });
    const right = service.addSnapshot({ parent: line.id });
    const { out } = await run(url, 'snapshots --tree');
    const shape = out.split('\n').map((text) => text.replace(/  lab .*/, ''));
    expect(shape).toEqual([
      `o ${root.id}`,
      `o ${line.id}`,
      `├─ o ${left.id}`,
      `│  o ${below.id}`,
      `└─ o ${right.id}`,
      '',
    ]);
    expect(out).toContain('"root"');
    expect(out).toContain('branch="left"');
  });
});

describe('staghorn edit, prune, export and import', () => {
  it('change what a snapshot is found by', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot({ name: 'a', description: 'b', labels: { one: '1' } });
    await run(url, `edit a --no-name --label two=2 --unlabel one`);
    expect(service.getSnapshot(id)).toMatchObject({ name: null, description: 'b', labels: { two: '2' } });
  });

  it('say what was removed and why the rest stays', async () => {
    const { service, url } = await listen();
    const [old, named, last] = [
      service.addSnapshot(),
      service.addSnapshot({ name: 'n' }),
      service.addSnapshot(),
    ];
    const { out } = await run(url, 'prune lab --keep-last 1 --dry-run');
    expect(out).toContain(`would remove ${old.id}\n`);
    expect(out).toContain(`kept ${named.id} (named)\n`);
    expect(out).toContain(`kept ${last.id} (last)\n`);
    expect((await run(url, 'prune lab')).exit).toBe(2);
  });

  it('write a file only if all of it came, and send one', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot({ name: 'a' });
    const directory = await mkdtemp(join(tmpdir(), 'staghorn-export-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const file = join(directory, 'a.tar.zst');
    service.streamError = new StaghornError('agent-lost', 'gone');
    expect((await run(url, `export a -o ${file}`)).exit).not.toBe(0);
    expect(await readdir(directory)).toEqual([]);
    service.streamError = null;
    expect((await run(url, `export a -o ${file}`)).exit).toBe(0);
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual(service.getSnapshot(id));
    const { exit, out } = await run(url, `import ${file} --experiment lab --map x=y`);
    expect([exit, out.includes(id)]).toEqual([0, true]);
    expect(service.calls.at(-1)).toBe('importSnapshot {"experiment":"lab","map":{"x":"y"}}');
    expect((await run(url, 'import /no/such --experiment lab')).exit).toBe(2);
  });
});

describe('staghorn snapshots, show, verify, delete', () => {
  it('list in a table and in JSON', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot({ name: 'before' });
    const { out } = await run(url, 'snapshots');
    expect(out).toMatch(new RegExp(`^ID .*\\n${id} +lab +before +sealed +fork +2 +2 +9.00 ms +256 MiB\\n$`));
    expect(JSON.parse((await run(url, 'snapshots lab --json')).out)).toHaveLength(1);
    expect((await run(url, 'snapshots no')).exit).toBe(4);
  });

  it('find a snapshot by id, beginning of an id, name and experiment/name', async () => {
    const { service, url } = await listen();
    const first = service.addSnapshot({ name: 'before' });
    const second = service.addSnapshot({ experiment: 'other', name: 'before' });
    for (const reference of [first.id, first.id.slice(0, -1), 'lab/before']) {
      expect([reference, JSON.parse((await run(url, `show ${reference} --json`)).out)]).toEqual([
        reference,
        first,
      ]);
    }
    const ambiguous = await run(url, 'show before');
    expect(ambiguous.exit).toBe(2);
    expect(ambiguous.err).toContain(`  ${second.id} (other/before)\n`);
    expect((await run(url, 'show nothing')).exit).toBe(4);
  });

  it('show what a snapshot does not keep', async () => {
    const { service, url } = await listen();
    const warnings = ['host red: bridge br0: mirrors (m0) are not kept'];
    const { id } = service.addSnapshot({ warnings });
    expect((await run(url, `show ${id}`)).out).toMatch(/\nwarning: host red: bridge br0: mirrors .*\n$/);
    expect(JSON.parse((await run(url, `show ${id} --json`)).out)).toMatchObject({ warnings });
  });

  it('verify tells whole from damaged', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    expect(await run(url, `verify ${id}`)).toMatchObject({
      exit: 0,
      out: `${id} is whole: 256 MiB checked\n`,
    });
    service.verifyProblems = ['red: ram-red-vm: wrong checksum'];
    const damaged = await run(url, `verify ${id} --json`);
    expect(damaged.exit).toBe(30);
    expect(JSON.parse(damaged.out)).toMatchObject({ ok: false });
    expect(JSON.parse(damaged.err)).toMatchObject({
      code: 'snapshot-damaged',
      problems: service.verifyProblems,
    });
  });

  it('delete deletes', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    expect(await run(url, `delete ${id}`)).toMatchObject({ exit: 0, out: `deleted ${id}\n` });
    expect(service.listSnapshots()).toEqual([]);
  });
});

describe('staghorn frames', () => {
  it('lists frames with what their headers say', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    const { out } = await run(url, `frames ${id}`);
    expect(out).toMatch(/^red +red-vm +tap0 +1\.50 ms +20 +52:54:00:00:00:02 +52:54:00:00:00:01 +IPv4$/m);
  });

  it('writes a capture file, also to stdout', async () => {
    const { service, url } = await listen();
    const { id } = service.addSnapshot();
    const directory = await mkdtemp(join(tmpdir(), 'staghorn-cli-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const path = join(directory, 'frames.pcapng');
    expect((await run(url, `frames ${id} --pcapng ${path}`)).exit).toBe(0);
    const terminal = new FakeTerminal({ env: { STAGHORN_URL: url } });
    expect(await runCli(['frames', id, '--pcapng', '-'], terminal, noParts)).toBe(0);
    expect(Buffer.concat(terminal.out)).toEqual(await readFile(path));
    expect(terminal.out[0]?.readUInt32BE(0)).toBe(0x0a0d0d0a);
  });
});

describe('staghorn operations, cancel', () => {
  it('list and cancel what is going on', async () => {
    const { service, url } = await listen();
    const { id } = service.operations.begin('verify', { experiment: 'lab' });
    expect((await run(url, 'operations')).out).toMatch(new RegExp(`^${id} +verify +lab +- +running `, 'm'));
    expect(await run(url, `cancel ${id}`)).toMatchObject({ exit: 0, out: `${id} has been cancelled\n` });
    expect((await run(url, 'cancel no')).exit).toBe(4);
  });
});
