import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { messageOf } from '../../errors/index.ts';
import { quantile, type BenchOptions, type BenchResult } from '../bench.ts';
import { PrivateLibvirt } from '../private-libvirt.ts';
import { guestFloppy } from './guests.ts';

const domains = 4;
const rounds = { full: 10, quick: 3 };
const bootMs = 3_000;

/** `virsh suspend` of four busy domains one after another, as its users have it. Says so where there is no libvirt. */
export async function suspendByLibvirt(options: BenchOptions): Promise<BenchResult[]> {
  options.onStep(`libvirt: ${domains} domains`);
  const directory = mkdtempSync(join(tmpdir(), 'staghorn-quiesce-libvirt-'));
  try {
    const samples = await measure(directory, options);
    return [
      {
        metric: `first to last word of virsh suspend, ${domains} VMs busy`,
        value: Number(quantile(samples, 0.5).toPrecision(3)),
        ...{ unit: 'ms', goal: null, met: null, samples },
        reference: `${samples.length} rounds; from the end of the first virsh to that of the last`,
      },
    ];
  } catch (error) {
    options.signal.throwIfAborted();
    options.onStep(`not compared with libvirt: ${messageOf(error)}`);
    return [];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measure(directory: string, { quick, signal }: BenchOptions): Promise<number[]> {
  const floppy = join(directory, 'floppy');
  writeFileSync(floppy, guestFloppy('busy'));
  const libvirt = await PrivateLibvirt.start(signal);
  try {
    const names = Array.from({ length: domains }, (_, place) => `quiesce${place}`);
    for (const name of names) await libvirt.create(name, domainXml(name, floppy));
    await delay(bootMs, undefined, { signal });
    const samples: number[] = [];
    for (let round = 0; round < (quick ? rounds.quick : rounds.full); round++) {
      const endsMs: number[] = [];
      for (const name of names) {
        await libvirt.virsh('suspend', name);
        endsMs.push(performance.now());
      }
      samples.push(endsMs.at(-1)! - endsMs[0]!);
      for (const name of names) await libvirt.virsh('resume', name);
    }
    return samples;
  } finally {
    await libvirt.stop();
  }
}

function domainXml(name: string, floppy: string): string {
  return `<domain type='qemu'>
  <name>${name}</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='fd'/></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='floppy'>
      <driver name='qemu' type='raw'/><source file='${floppy}'/><target dev='fda'/><readonly/>
    </disk>
  </devices>
</domain>
`;
}
