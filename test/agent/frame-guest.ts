import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packCpio } from '../../src/lab/cpio.ts';
import { GUEST_CACHE } from '../../src/lab/guest-image.ts';
import { unpackPackage } from '../../src/lab/guest-packages.ts';
import { until } from '../network/network-lab.ts';
import { TestQemu } from '../native/qemu.ts';

/** In the order in which they must be loaded; Debian's cloud kernel has no drivers of real network cards. */
const modules =
  'virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net e1000 mii 8139cp';

/** Kernel and initial RAM disk of guests that tell which frames they received. */
export class FrameGuestImage {
  readonly #directory = mkdtempSync(join(tmpdir(), 'staghorn-frame-guest-'));
  kernel = '';

  static async build(): Promise<FrameGuestImage> {
    const image = new FrameGuestImage();
    const files = await unpackKernel();
    image.kernel = join(
      files,
      'boot',
      readdirSync(join(files, 'boot')).find((name) => name.startsWith('vmlinuz'))!,
    );
    const init = join(image.#directory, 'init');
    execFileSync('gcc', ['-static', '-s', '-O2', '-Wall', '-Wextra', '-o', init, 'test/agent/frame-guest.c']);
    const all = readdirSync(join(files, 'lib/modules'), { recursive: true }).map(String);
    const names = modules.split(' ').map((name) => `${name}.ko`);
    const entries = [
      { path: 'dev', mode: 0o040755 },
      { path: 'modules', mode: 0o040755 },
      { path: 'init', mode: 0o100755, data: readFileSync(init) },
      { path: 'modules/order', mode: 0o100644, data: Buffer.from(names.join('\n')) },
      ...names.map((name) => {
        const path = all.find((file) => file.endsWith(`/${name}`))!;
        return {
          path: `modules/${name}`,
          mode: 0o100644,
          data: readFileSync(join(files, 'lib/modules', path)),
        };
      }),
    ];
    writeFileSync(image.initrd, packCpio(entries));
    return image;
  }

  get initrd(): string {
    return join(this.#directory, 'initrd');
  }

  remove(): void {
    rmSync(this.#directory, { recursive: true });
  }
}

async function unpackKernel(): Promise<string> {
  const text = execFileSync('apt-cache', ['show', '--no-all-versions', 'linux-image-amd64'], {
    encoding: 'utf8',
  });
  const [, name, version] = /^Depends: .*?(linux-image-\S+) \(= ([^)]+)\)/m.exec(text)!;
  const signal = AbortSignal.timeout(300_000);
  return unpackPackage({ name: name!, version: version! }, { cache: join(GUEST_CACHE, 'packages'), signal });
}

/** A VM whose NIC is on a tap, and the numbers of the frames that its guest received. */
export class FrameGuest {
  readonly qemu: TestQemu;
  readonly #told: string;

  private constructor(qemu: TestQemu, told: string) {
    this.qemu = qemu;
    this.#told = told;
  }

  /** @param nic of QEMU's command line: its netdev and device. */
  static async start(image: FrameGuestImage, name: string, nic: readonly string[]): Promise<FrameGuest> {
    const told = `${image.initrd}-${name}`;
    const qemu = await TestQemu.start([
      ...['-name', name, '-m', '192', '-smp', '2', '-rtc', 'clock=vm'],
      ...['-kernel', image.kernel, '-initrd', image.initrd],
      ...['-append', 'console=ttyS0 panic=-1 tsc=reliable no_timer_check mitigations=off cryptomgr.notests'],
      ...['-serial', `file:${told}.console`, '-serial', `file:${told}`],
      ...nic,
    ]);
    const guest = new FrameGuest(qemu, told);
    try {
      await until(() => guest.#lines().includes('ready'), `guest ${name} is up`, 60_000);
      return guest;
    } catch (error) {
      await qemu.stop();
      throw error;
    }
  }

  get received(): number[] {
    return this.#lines()
      .filter((line) => /^\d+$/.test(line))
      .map(Number);
  }

  async has(count: number): Promise<number[]> {
    await until(() => this.received.length >= count, `the guest received ${count} frames`, 30_000);
    return this.received;
  }

  #lines(): string[] {
    // The last line may not be whole yet.
    return readFileSync(this.#told, 'utf8').split('\n').slice(0, -1);
  }
}
