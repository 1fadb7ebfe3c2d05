import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { labDown, labStatus, labUp, parseLabFile } from '../../src/lab/index.ts';
import { planLab } from '../../src/lab/plan.ts';
import { leftovers } from './leftovers.ts';

const name = `labkill-${process.pid}`;
const text = `name: ${name}
management: 198.18.${128 + (process.pid % 64)}.0/24
hosts: [{ name: h1 }, { name: h2 }]
vms: [{ name: a, host: h1 }, { name: b, host: h2 }]
`;
const plan = planLab(parseLabFile(text));
const links = [plan.management.bridge, ...plan.hosts.map(({ managementLink }) => managementLink)];

// As deep below the checkout as src/lab, so that the lab finds its files.
const directory = join(import.meta.dirname, `../../dist/test-${name}`);
const program = join(directory, 'up.mjs');
const SOURCE = `
import { labUp, parseLabFile } from '../../src/lab/index.ts';
const [, , text, last] = process.argv;
await labUp(parseLabFile(text), { onProgress: ({ step }) => step === last && process.kill(process.pid, 'SIGKILL') });
`;

describe('a lab whose "up" does not end well', () => {
  beforeAll(async () => {
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'up.ts'), SOURCE);
    const options = { bundle: true, platform: 'node', format: 'esm', packages: 'external' } as const;
    await build({ ...options, entryPoints: [join(directory, 'up.ts')], outfile: program });
  });
  afterAll(async () => {
    await labDown(name);
    await rm(directory, { recursive: true });
  });

  /** Starts "up" in a process of its own, which kills itself as soon as it comes to the step: nobody else is in time. */
  async function killAt(step: string): Promise<void> {
    const child = spawn(process.execPath, [program, text, step], { stdio: 'inherit' });
    expect((await once(child, 'exit'))[1]).toBe('SIGKILL');
  }

  for (const step of ['network', 'host', 'boot', 'ready']) {
    it(`leaves nothing after it was killed at "${step}" and taken down`, { timeout: 120_000 }, async () => {
      await killAt(step);
      expect(await labStatus(name)).toMatchObject({ state: 'broken' });
      await expect(labUp(parseLabFile(text))).rejects.toMatchObject({
        code: 'conflict',
        message: expect.stringMatching(/half-made/) as string,
      });
      expect(await labDown(name)).toBe(true);
      expect(leftovers(name, links)).toEqual([]);
    });
  }

  it('leaves nothing when it is cancelled', { timeout: 120_000 }, async () => {
    const cancel = new AbortController();
    const onProgress = ({ step }: { step: string }): void => {
      if (step === 'boot') cancel.abort();
    };
    const attempt = labUp(parseLabFile(text), { onProgress, signal: cancel.signal });
    await expect(attempt).rejects.toMatchObject({ code: 'cancelled' });
    expect(leftovers(name, links)).toEqual([]);
  });

  it('says which guest did not come up, and leaves nothing', { timeout: 120_000 }, async () => {
    // Too little memory to unpack its initial RAM disk: the kernel panics, and QEMU ends.
    const file = parseLabFile(text);
    file.vms[1]!.memoryMiB = 24;
    const attempt = labUp(file);
    await expect(attempt).rejects.toMatchObject({ code: 'vm-failed', context: { host: 'h2', vm: 'b' } });
    expect(leftovers(name, links)).toEqual([]);
  });
});
