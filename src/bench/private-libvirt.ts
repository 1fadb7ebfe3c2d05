import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { run } from '../lab/command.ts';

const startBoundMs = 30_000;
const pollMs = 50;
/** Where libvirtd keeps everything: memory of its own instead of the machine's. */
const places = ['/run', '/etc/libvirt', '/var/lib/libvirt', '/var/cache/libvirt', '/var/log/libvirt'];
const settings = [
  'user = "root"',
  'group = "root"',
  'stdio_handler = "file"',
  'cgroup_controllers = []',
  'security_driver = "none"',
  'remember_owner = 0',
  'namespaces = []',
].join('\n');

/** A libvirtd to compare with, in a mount namespace of its own: the machine's, if it has one, is not touched. */
export class PrivateLibvirt {
  readonly #daemon: ChildProcess;
  readonly #directory: string;

  private constructor(daemon: ChildProcess, directory: string) {
    this.#daemon = daemon;
    this.#directory = directory;
  }

  /** @throws Error where there is none: Debian's package libvirt-daemon-system has it, libvirt-clients virsh */
  static async start(signal: AbortSignal): Promise<PrivateLibvirt> {
    const directory = mkdtempSync(join(tmpdir(), 'staghorn-libvirt-'));
    writeFileSync(join(directory, 'qemu.conf'), `${settings}\n`);
    const script = [
      'set -e',
      ...places.map((place) => `mkdir -p ${place} && mount -t tmpfs tmpfs ${place}`),
      'mkdir -p /run/libvirt /run/lock /etc/libvirt/qemu',
      `cp ${join(directory, 'qemu.conf')} /etc/libvirt/qemu.conf`,
      'exec /usr/sbin/libvirtd',
    ].join('\n');
    const daemon = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {
      stdio: 'ignore',
    });
    const made = new PrivateLibvirt(daemon, directory);
    try {
      await made.#answers(signal);
      return made;
    } catch (error) {
      await made.stop();
      throw error;
    }
  }

  virsh(...args: readonly string[]): Promise<string> {
    const inside = ['nsenter', `--target=${this.#daemon.pid}`, '--mount'];
    return run([...inside, 'virsh', '--connect', 'qemu:///system', ...args]);
  }

  /** Starts a domain from its XML; it is gone when it ends. */
  async create(name: string, xml: string): Promise<void> {
    const path = join(this.#directory, `${name}.xml`);
    writeFileSync(path, xml);
    await this.virsh('create', path);
  }

  /** Ends it with all of its domains. */
  async stop(): Promise<void> {
    if (this.#daemon.exitCode === null && this.#daemon.signalCode === null) {
      const ended = once(this.#daemon, 'exit');
      const names = await this.virsh('list', '--name').catch(() => '');
      for (const name of names.split('\n').filter((line) => line !== ''))
        await this.virsh('destroy', name).catch(() => undefined);
      this.#daemon.kill('SIGTERM');
      await ended;
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #answers(signal: AbortSignal): Promise<void> {
    const limitMs = performance.now() + startBoundMs;
    for (;;) {
      if (this.#daemon.exitCode !== null)
        throw new Error('libvirtd did not start: is libvirt-daemon-system installed?');
      try {
        await this.virsh('version');
        return;
      } catch (error) {
        if (performance.now() > limitMs) throw error;
      }
      await delay(pollMs, undefined, { signal });
    }
  }
}
