import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { bundleSuites } from './bundle.ts';
import type { GuestMessage } from './guest-message.ts';
import { prepareHostKernel } from './host-kernel.ts';
import type { HostKernel } from './host-kernel.ts';
import { makeInitialRamDisk } from './initial-ram-disk.ts';

const MEMORY_MIB = 2048;
const CONSOLE_TAIL_BYTES = 6000;
/** How much later than the guest itself the machine gives up. */
const GRACE_MS = 15_000;

export interface GuestRunOptions {
  readonly checkout: string;
  readonly suites: readonly string[];
  readonly pattern: string | undefined;
  readonly limitSeconds: number;
  /** Leaves the folder with the bundle and the console's log. */
  readonly keep: boolean;
  readonly onMessage: (message: GuestMessage) => void;
}

export interface GuestRun {
  /** Whether the guest came to the end of its suites. */
  readonly complete: boolean;
  /** The end of its console. */
  readonly console: string;
  readonly kernel: string;
}

function command(kernel: HostKernel, folder: string, options: GuestRunOptions): string[] {
  const words = {
    modules: kernel.modules,
    checkout: options.checkout,
    run: join(folder, 'suites.mjs'),
    limit: options.limitSeconds,
  };
  const append = Object.entries(words).map(([name, value]) => `sg.${name}=${value}`);
  return [
    ...['-M', 'pc', '-cpu', 'max', '-accel', 'tcg,thread=multi,tb-size=512', '-smp', '2'],
    ...['-m', String(MEMORY_MIB), '-nodefaults', '-display', 'none', '-vga', 'none', '-no-reboot'],
    ...['-kernel', kernel.image, '-initrd', join(folder, 'initrd')],
    ...['-append', `console=ttyS0 quiet panic=-1 mitigations=off ${append.join(' ')}`],
    // The first port is the console, the second what the suites say.
    ...['-serial', `file:${join(folder, 'console.log')}`, '-serial', 'stdio'],
    ...['-virtfs', 'local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap'],
  ];
}

async function listen(child: ChildProcess, onMessage: (message: GuestMessage) => void): Promise<boolean> {
  let complete = false;
  if (child.stdout === null) throw new Error('the guest has no output');
  for await (const line of createInterface({ input: child.stdout })) {
    const start = line.indexOf('{"kind":');
    if (start < 0) continue; // something that a test's child wrote
    const message = JSON.parse(line.slice(start)) as GuestMessage;
    complete ||= message.kind === 'end';
    onMessage(message);
  }
  return complete;
}

async function boot(kernel: HostKernel, folder: string, options: GuestRunOptions): Promise<GuestRun> {
  const child = spawn('qemu-system-x86_64', command(kernel, folder, options), {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(child, 'close');
  let complaints = '';
  child.stderr.on('data', (text: Buffer) => (complaints += String(text)));
  const limit = setTimeout(() => child.kill('SIGKILL'), options.limitSeconds * 1000 + GRACE_MS);
  try {
    const complete = await listen(child, options.onMessage);
    await ended;
    const text = await readFile(join(folder, 'console.log'), 'utf8').catch(() => '');
    return { complete, console: `${complaints}${text.slice(-CONSOLE_TAIL_BYTES)}`, kernel: kernel.release };
  } finally {
    clearTimeout(limit);
    child.kill('SIGKILL');
    await ended;
  }
}

/** Boots Debian's kernel over the machine's own files, runs suites of tests in there, and leaves nothing. */
export async function runInGuestHost(options: GuestRunOptions): Promise<GuestRun> {
  const kernel = await prepareHostKernel(AbortSignal.timeout(600_000));
  const folder = await mkdtemp(join(tmpdir(), 'staghorn-kernel-'));
  try {
    await writeFile(join(folder, 'initrd'), await makeInitialRamDisk(kernel));
    await bundleSuites({ ...options, folder });
    return await boot(kernel, folder, options);
  } finally {
    if (options.keep) console.error(`kept: ${folder}`);
    else await rm(folder, { recursive: true, force: true });
  }
}
