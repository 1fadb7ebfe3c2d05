import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { packCpio } from '../../src/lab/cpio.ts';
import { prepareGuestImages } from '../../src/lab/guest-image.ts';
import { parseCommandLine } from '../../src/vmm/command-line.ts';
import { shiftClocks, type ClockShift } from '../../src/vmm/clock-shift.ts';
import { withConfiguration } from '../../src/vmm/device-state.ts';
import { launchPaused, loadDeviceState, type LaunchSpec } from '../../src/vmm/launch.ts';
import { terminateVm } from '../../src/vmm/terminate.ts';
import { eventually, qemuBinary, TestQemu } from '../native/qemu.ts';

const ramBytes = 96 * 1024 * 1024;
const upBoundMs = 60_000;

export interface ClockReading {
  readonly realtimeNs: bigint;
  readonly monotonicNs: bigint;
  readonly boottimeNs: bigint;
  readonly rtcS: number;
  readonly lateNs: bigint;
}

/** A VM whose guest tells its clocks, saved once and restored as often as one likes. */
export class ClockGuest {
  readonly #directory = mkdtempSync(join(tmpdir(), 'staghorn-clock-'));
  #args: string[] = [];
  #machineType = '';

  /** @param rtc of QEMU's command line */
  static async saved(rtc: string): Promise<ClockGuest> {
    const guest = new ClockGuest();
    try {
      await guest.#boot(rtc);
      return guest;
    } catch (error) {
      guest.remove();
      throw error;
    }
  }

  /** Until the VM was stopped. */
  async before(): Promise<ClockReading[]> {
    return readClocks(this.#path('console'));
  }

  /** Restores it with its clocks moved. @returns what its guest told when it ran again */
  async restored(shift: ClockShift, count = 20): Promise<{ resumedAtMs: number; told: ClockReading[] }> {
    const state = shiftClocks(await readFile(this.#path('state')), shift, parseCommandLine(this.#args));
    const console = this.#path('console-after');
    rmSync(console, { force: true });
    const spec = this.#spec();
    const vm = await launchPaused(spec);
    try {
      await loadDeviceState(vm, spec, state);
      const resumedAtMs = Date.now();
      await vm.qmp.execute('cont');
      const told = await eventually(async () => {
        const readings = await readClocks(console);
        return readings.length >= count && readings;
      }, upBoundMs);
      return { resumedAtMs, told };
    } finally {
      await vm.qmp.close();
      await terminateVm(vm.process);
    }
  }

  remove(): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #path(name: string): string {
    return join(this.#directory, name);
  }

  async #boot(rtc: string): Promise<void> {
    const init = this.#path('init');
    execFileSync('gcc', ['-static', '-s', '-O2', '-Wall', '-Wextra', '-o', init, 'test/vmm/clock-guest.c']);
    const entries = [
      { path: 'dev', mode: 0o040755 },
      { path: 'init', mode: 0o100755, data: readFileSync(init) },
    ];
    writeFileSync(this.#path('initrd'), packCpio(entries));
    const { cloud } = await prepareGuestImages(['cloud'], AbortSignal.timeout(300_000));
    const own = [...['-m', String(ramBytes / 1024 / 1024)], ...['-rtc', rtc], ...['-kernel', cloud.kernel]];
    const boot = [
      ...['-initrd', this.#path('initrd')],
      ...['-append', 'console=ttyS0 quiet tsc=reliable no_timer_check mitigations=off cryptomgr.notests'],
    ];
    this.#args = [
      '-accel',
      'tcg',
      '-M',
      'pc',
      '-display',
      'none',
      '-nodefaults',
      '-vga',
      'std',
      ...own,
      ...boot,
    ];
    const ram = `memory-backend-file,id=ram,size=${ramBytes},share=on,mem-path=${this.#path('ram')}`;
    const qemu = await TestQemu.start([
      ...[...own, ...boot, '-object', ram, '-machine', 'memory-backend=ram'],
      ...['-serial', `file:${this.#path('console')}`],
    ]);
    try {
      await eventually(async () => (await this.before()).length > 20, upBoundMs);
      await qemu.qmp.execute('stop');
      const raw = this.#path('raw');
      await qemu.qmp.execute('xen-save-devices-state', { filename: raw, live: false });
      const machine = (await qemu.qmp.execute('qom-get', { path: '/machine', property: 'type' })) as string;
      this.#machineType = machine.replace(/-machine$/, '');
      writeFileSync(
        this.#path('state'),
        withConfiguration(await readFile(raw), machine.replace(/-machine$/, '')),
      );
    } finally {
      await qemu.stop();
    }
  }

  #spec(): LaunchSpec {
    const socket = this.#path('restored.sock');
    return {
      name: 'clock-guest',
      exe: qemuBinary,
      args: [
        ...this.#args,
        ...['-serial', `file:${this.#path('console-after')}`],
        ...['-qmp', `unix:${socket},server=on,wait=off`],
      ],
      cwd: this.#directory,
      uid: 0,
      gid: 0,
      qmpSocket: socket,
      machineType: this.#machineType,
      ramFile: this.#path('ram'),
      ramBytes,
      backends: [],
      logFile: this.#path('restored.log'),
    };
  }
}

/** Lines may be cut off at either end, where a VM was stopped or began again. */
async function readClocks(path: string): Promise<ClockReading[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return [...text.matchAll(/clocks (\d+) (\d+) (\d+) (-?\d+) (-?\d+)\r?\n/g)].map((line) => ({
    realtimeNs: BigInt(line[1]!),
    monotonicNs: BigInt(line[2]!),
    boottimeNs: BigInt(line[3]!),
    rtcS: Number(line[4]),
    lateNs: BigInt(line[5]!),
  }));
}
