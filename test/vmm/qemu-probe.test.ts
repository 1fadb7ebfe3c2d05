import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { QemuProbes } from '../../src/vmm/qemu-probe.ts';
import { findQemuProcesses, readQemuProcess } from '../../src/vmm/qemu-process.ts';
import { eventually, qemuBinary } from '../native/qemu.ts';

describe('a probe of a QEMU binary', () => {
  const probes = new QemuProbes();
  const { signal } = new AbortController();
  let directory: string;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'staghorn-probes-'));
  });
  afterAll(() => rm(directory, { recursive: true }));

  it('tells version, machine types and CPU models, and is made once', async () => {
    const [one, other] = await Promise.all([
      probes.ask(qemuBinary, 'tcg', signal),
      probes.ask(qemuBinary, 'tcg', signal),
    ]);
    expect(one).toBe(other);
    if (typeof one === 'string') throw new Error(one);
    expect(one.version).toMatch(/^\d+\.\d+\.\d+$/);
    expect([...one.machines]).toEqual(expect.arrayContaining(['pc', 'q35', 'microvm']));
    expect([...one.cpus.keys()]).toEqual(expect.arrayContaining(['qemu64', 'max']));
  });

  it('is no VM', async () => {
    const path = join(directory, 'probe.qmp');
    const child = spawn(qemuBinary, ['-M', 'none', '-display', 'none', '-qmp', `unix:${path},server=on`]);
    try {
      await eventually(() => Promise.resolve(existsSync(path)));
      expect(await readQemuProcess(child.pid!)).not.toBeNull();
      expect((await findQemuProcesses()).filter(({ pid }) => pid === child.pid)).toEqual([]);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('says why it learns nothing, and asks again when there is something else', async () => {
    const exe = join(directory, 'qemu-system-x86_64');
    expect(await probes.ask(exe, 'tcg', signal)).toMatch(/ENOENT/);
    await writeFile(exe, '#!/bin/sh\necho broken >&2\nexit 3\n', { mode: 0o755 });
    expect(await probes.ask(exe, 'tcg', signal)).toMatch(/exit code 3; it printed: broken/);
    await writeFile(exe, `#!/bin/sh\nexec ${qemuBinary} "$@"\n`, { mode: 0o755 });
    expect(await probes.ask(exe, 'tcg', signal)).toHaveProperty('version');
  });
});
