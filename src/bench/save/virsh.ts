import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { parseSmaps } from '../../native/process-memory.ts';
import { writeNoise } from './bench-vm.ts';

const mebibyte = 1024 * 1024;
const settings = [
  'stdio_handler = "file"',
  'security_driver = "none"',
  'user = "root"',
  'group = "root"',
  'cgroup_controllers = []',
  'namespaces = []',
  'remember_owner = 0',
];

/**
 * How long `virsh save` takes for a VM of this size with most of it dirty, in ms; or in words why it cannot be told.
 * libvirt's QEMU driver runs embedded in virsh, with a root directory of its own: the system's libvirtd is not asked.
 */
export async function timeVirshSave(memoryMiB: number, fraction: number): Promise<number | string> {
  const root = await mkdtemp(join(tmpdir(), 'staghorn-bench-virsh-'));
  const [definition, saved] = [join(root, 'vm.xml'), join(root, 'saved')];
  await mkdir(join(root, 'etc'));
  await writeFile(join(root, 'etc/qemu.conf'), `${settings.join('\n')}\n`);
  await writeFile(definition, domain(memoryMiB));
  const shell = new Virsh(root);
  try {
    const refused = await shell.run(`create ${definition}`);
    if (refused !== null) return refused;
    await dirty(Number(await readFile(join(root, 'run/qemu/bench.pid'), 'utf8')), memoryMiB, fraction);
    const startedMs = performance.now();
    const failed = await shell.run(`save bench ${saved}`);
    const ms = performance.now() - startedMs;
    if (failed !== null) return failed;
    const { size } = await stat(saved);
    return size >= memoryMiB * mebibyte * fraction * 0.9 ? ms : `it saved ${size} bytes only`;
  } finally {
    await shell.run('destroy bench');
    await shell.close();
    await rm(root, { recursive: true, force: true });
  }
}

function domain(memoryMiB: number): string {
  return `<domain type="qemu"><name>bench</name><memory unit="MiB">${memoryMiB}</memory>
<os><type arch="x86_64" machine="pc">hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model="none"/></devices></domain>
`;
}

async function dirty(pid: number, memoryMiB: number, fraction: number): Promise<void> {
  const mappings = parseSmaps(await readFile(`/proc/${pid}/smaps`, 'utf8'));
  const ram = mappings.find(({ length }) => length === memoryMiB * mebibyte);
  if (ram === undefined) throw new Error('the RAM of the VM that virsh started was not found');
  writeNoise({ pid, address: ram.address, length: memoryMiB * mebibyte }, fraction);
}

/** virsh reading commands: what it says until a mark of ours comes belongs to the command before. */
class Virsh {
  readonly #child: ChildProcessWithoutNullStreams;
  #said = '';
  #marks = 0;
  #ended: string | null = null;
  readonly #changed = new EventTarget();

  constructor(root: string) {
    this.#child = spawn('virsh', ['-q', '-c', `qemu:///embed?root=${root}`]);
    const heard = (text: Buffer) => this.#change(() => (this.#said += text.toString()));
    this.#child.stdout.on('data', heard);
    this.#child.stderr.on('data', heard);
    this.#child.stdin.on('error', () => undefined);
    this.#child.on('error', ({ message }) => this.#change(() => (this.#ended = message)));
    this.#child.on('exit', () => this.#change(() => (this.#ended ??= 'virsh ended')));
  }

  /** @returns null, or its error */
  async run(command: string): Promise<string | null> {
    const mark = `staghorn-mark-${++this.#marks}`;
    this.#said = '';
    this.#child.stdin.write(`${command}\necho ${mark}\n`);
    const isOver = () => this.#ended !== null || new RegExp(`^${mark}`, 'm').test(this.#said);
    while (!isOver()) await once(this.#changed, 'change');
    return /^error: .*/m.exec(this.#said)?.[0] ?? this.#ended;
  }

  async close(): Promise<void> {
    this.#child.stdin.end('quit\n');
    while (this.#ended === null) await once(this.#changed, 'change');
  }

  #change(change: () => unknown): void {
    change();
    this.#changed.dispatchEvent(new Event('change'));
  }
}
