import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  locateRamBlocks,
  parseGpa2hva,
  parseRamBlocks,
  parseSmaps,
} from '../../src/native/process-memory.ts';
import type { LocatedBlock, MemoryMapping } from '../../src/native/process-memory.ts';

export const qemuBinary = '/usr/bin/qemu-system-x86_64';

const counterGuestAddress = 0x8000n;
const floppyBytes = 1440 * 1024;

/** A boot sector: xor ax,ax; mov ds,ax; again: sti; hlt; inc dword [0x8000]; jmp again. */
const counterFloppy = Buffer.alloc(floppyBytes);
Buffer.from('31c08ed8fbf466ff060080ebf7', 'hex').copy(counterFloppy);
counterFloppy.writeUInt16BE(0x55aa, 510);

/** Waits until `check` gives something other than undefined or false. */
export async function eventually<T>(
  check: () => Promise<T | undefined | false>,
  timeoutMs = 10_000,
): Promise<T> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== undefined && value !== false) return value;
    if (performance.now() > deadlineMs)
      throw new Error(`condition not met within ${timeoutMs} ms: ${check.toString()}`);
    await delay(10);
  }
}

interface QmpMessage {
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
  readonly event?: string;
  readonly QMP?: unknown;
}

/** As little QMP as the tests of the addon need. */
export class TestQmp {
  readonly socket: Socket;
  readonly events: string[] = [];
  readonly #waiting: ((message: QmpMessage) => void)[] = [];
  #buffered = '';

  constructor(socket: Socket) {
    this.socket = socket;
    this.socket.setEncoding('utf8');
    this.socket.on('error', () => {});
    this.socket.on('close', () => {
      for (const settle of this.#waiting.splice(0)) settle({ error: { desc: 'QMP connection closed' } });
    });
    this.socket.on('data', (text: string) => {
      this.#buffered += text;
      const lines = this.#buffered.split('\n');
      this.#buffered = lines.pop() ?? '';
      for (const line of lines) this.#receive(JSON.parse(line) as QmpMessage);
    });
  }

  #receive(message: QmpMessage): void {
    if (message.event !== undefined) this.events.push(message.event);
    else this.#waiting.shift()?.(message);
  }

  /** The descriptor of the socket, which Node does not show in its types. */
  get fd(): number {
    return (this.socket as unknown as { _handle: { fd: number } })._handle.fd;
  }

  /** The answer to something that was, or is being, written. */
  async answer(write: () => void | Promise<void> = () => {}): Promise<unknown> {
    const message = await new Promise<QmpMessage>((resolve) => {
      this.#waiting.push(resolve);
      void write();
    });
    if (message.error) throw new Error(message.error.desc);
    return message.return;
  }

  async execute(command: string, args: object = {}): Promise<unknown> {
    return this.answer(() => {
      this.socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  async hmp(line: string): Promise<string> {
    return (await this.execute('human-monitor-command', { 'command-line': line })) as string;
  }

  async event(name: string, timeoutMs = 10_000): Promise<void> {
    await eventually(async () => this.events.includes(name), timeoutMs);
  }
}

export class TestQemu {
  readonly process: ChildProcess;
  readonly directory = mkdtempSync(join(tmpdir(), 'staghorn-native-'));
  qmp!: TestQmp;

  private constructor(args: readonly string[], floppy?: Buffer) {
    const image = join(this.directory, 'floppy.img');
    if (floppy !== undefined) writeFileSync(image, floppy);
    const drive = floppy === undefined ? [] : ['-drive', `if=floppy,format=raw,readonly=on,file=${image}`];
    const socket = `unix:${this.socketPath},server=on,wait=off`;
    this.process = spawn(
      qemuBinary,
      [
        '-accel',
        'tcg',
        '-M',
        'pc',
        '-display',
        'none',
        '-nodefaults',
        '-vga',
        'std',
        '-qmp',
        socket,
        ...drive,
        ...args,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
  }

  static async start(args: readonly string[] = ['-m', '64'], floppy?: Buffer): Promise<TestQemu> {
    const qemu = new TestQemu(args, floppy);
    try {
      qemu.qmp = new TestQmp(await qemu.#connect());
      await qemu.qmp.answer(); // the greeting
      await qemu.qmp.execute('qmp_capabilities');
      if (floppy !== undefined) await qemu.countsOn();
      return qemu;
    } catch (error) {
      await qemu.stop();
      throw error;
    }
  }

  /** A VM whose guest counts at each timer interrupt. Returns when it does. */
  static async startCounting(args: readonly string[] = ['-m', '64']): Promise<TestQemu> {
    return TestQemu.start([...args, '-boot', 'a'], counterFloppy);
  }

  /** The socket's file is there a moment before QEMU listens. */
  async #connect(): Promise<Socket> {
    return eventually(async () => {
      if (this.process.exitCode !== null) throw new Error(`QEMU ended with ${this.process.exitCode}`);
      const socket = connect(this.socketPath);
      return once(socket, 'connect').then(
        () => socket,
        () => undefined,
      );
    });
  }

  get socketPath(): string {
    return join(this.directory, 'qmp.sock');
  }

  get pid(): number {
    if (this.process.pid === undefined) throw new Error('QEMU did not start');
    return this.process.pid;
  }

  async smaps(): Promise<MemoryMapping[]> {
    return parseSmaps(await readFile(`/proc/${this.pid}/smaps`, 'utf8'));
  }

  async blocks(): Promise<readonly LocatedBlock[]> {
    const hvaOfFirst = parseGpa2hva(await this.qmp.hmp('gpa2hva 0x0'));
    if (hvaOfFirst === null) throw new Error('gpa2hva failed');
    const ramBlocks = parseRamBlocks(await this.qmp.hmp('info ramblock'));
    const known = new Map([[hvaOfFirst.name, hvaOfFirst.address]]);
    return locateRamBlocks({ smaps: await this.smaps(), ramBlocks, known }).blocks;
  }

  async block(name: string): Promise<LocatedBlock> {
    const block = (await this.blocks()).find((one) => one.name === name);
    if (block === undefined) throw new Error(`no block ${name}`);
    return block;
  }

  async status(): Promise<string> {
    return ((await this.qmp.execute('query-status')) as { status: string }).status;
  }

  /** What the guest of `counterFloppy` has counted to. */
  async counter(): Promise<number> {
    const address = parseGpa2hva(await this.qmp.hmp('gpa2hva 0x0'))?.address ?? 0n;
    return (await readMemory(this.pid, address + counterGuestAddress, 4)).readUInt32LE();
  }

  async countsOn(): Promise<void> {
    const before = await this.counter();
    await eventually(async () => (await this.counter()) !== before);
  }

  async stop(): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill('SIGKILL');
      await once(this.process, 'exit');
    }
    this.qmp?.socket.destroy();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** PIDs whose parent is `pid`, zombies included. */
export async function childrenOf(pid: number): Promise<number[]> {
  return (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8'))
    .trim()
    .split(' ')
    .filter(Boolean)
    .map(Number);
}

export async function readMemory(pid: number, address: bigint, length: number): Promise<Buffer> {
  const memory = await open(`/proc/${pid}/mem`, 'r');
  try {
    const buffer = Buffer.alloc(length);
    for (let done = 0; done < length;) {
      const { bytesRead } = await memory.read(buffer, done, length - done, Number(address) + done);
      if (bytesRead === 0) throw new Error(`process ${pid} has no memory any more`);
      done += bytesRead;
    }
    return buffer;
  } finally {
    await memory.close();
  }
}

/** PIDs of processes whose command line mentions `text`: a QEMU and images of it. */
export async function processesMentioning(text: string): Promise<number[]> {
  const found: number[] = [];
  for (const entry of await readdir('/proc')) {
    const commandLine = /^\d+$/.test(entry)
      ? await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')
      : '';
    if (commandLine.includes(text)) found.push(Number(entry));
  }
  return found;
}
