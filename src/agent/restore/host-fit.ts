import { access, readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { messageOf } from '../../errors/index.ts';
import { readLinks, type Link } from '../../native/netlink.ts';
import type { StoredVm } from '../../store/manifest.ts';
import { all, parseCommandLine } from '../../vmm/command-line.ts';
import type { Fit } from '../../vmm/qemu-fit.ts';
import type { QemuProcess } from '../../vmm/qemu-process.ts';

const tapBoundMs = 3_000;
const socketBoundMs = 2_000;
const pollMs = 20;

/** Options whose value is a file that QEMU opens at its start. */
const fileOptions = ['kernel', 'initrd', 'bios', 'dtb'];

export interface HostFitOptions {
  readonly vms: readonly StoredVm[];
  /** VMs that would be destroyed: what they hold is free then. */
  readonly doomed: readonly QemuProcess[];
  readonly links: readonly Link[];
}

/** What the host itself has against the VMs: files, sockets and taps that are missing or taken, memory. */
export async function hostFit(options: HostFitOptions): Promise<Fit> {
  const [files, sockets, memory, taps] = await Promise.all([
    Promise.all(options.vms.map(missingFiles)),
    takenSockets(options),
    memoryFit(options),
    takenTaps(options),
  ]);
  return {
    misfits: [...files.flat(), ...sockets, ...taps, ...memory.misfits],
    warnings: [...memory.warnings, ...changedMtus(options)],
  };
}

async function missingFiles({ name, args, cwd, qmpSocket }: StoredVm): Promise<string[]> {
  const options = parseCommandLine(args);
  const files = fileOptions.flatMap((option) => all(options, option)).map((path) => resolve(cwd, path));
  const needed = [cwd, dirname(resolve(cwd, qmpSocket)), ...files];
  const checks = needed.map((path) => access(path).then(() => null, messageOf));
  return (await Promise.all(checks)).flatMap((problem) =>
    problem === null ? [] : [`VM ${name}: ${problem}`],
  );
}

/**
 * A socket that somebody else listens at cannot be QEMU's; the file alone is no obstacle: QEMU removes it. A QEMU that
 * is ending is found no more before its socket is closed, so that is waited for.
 */
async function takenSockets({ vms, doomed }: HostFitOptions): Promise<string[]> {
  const free = new Set(doomed.flatMap(({ qmpSockets }) => qmpSockets));
  const look = async () => {
    const listening = listenersOf(await readFile('/proc/net/unix', 'utf8'));
    return vms.flatMap(({ name, qmpSocket }) =>
      listening.has(qmpSocket) && !free.has(qmpSocket)
        ? [`VM ${name}: another process listens at its QMP socket ${qmpSocket}`]
        : [],
    );
  };
  return whatStays(socketBoundMs, await look(), look);
}

/** What is still found after some time; nothing as soon as nothing is. */
async function whatStays(
  boundMs: number,
  first: string[],
  lookAgain: () => string[] | Promise<string[]>,
): Promise<string[]> {
  const limitMs = performance.now() + boundMs;
  let found = first;
  while (found.length > 0 && performance.now() < limitMs) {
    await delay(pollMs);
    found = await lookAgain();
  }
  return found;
}

/** Paths of sockets that accept connections: flag __SO_ACCEPTCON (net/unix/af_unix.c, unix_seq_show). */
export function listenersOf(procNetUnix: string): Set<string> {
  const rows = procNetUnix.split('\n').map((line) => line.trim().split(/\s+/));
  return new Set(rows.flatMap(([, , , flags, , , , path]) => (flags === '00010000' && path ? [path] : [])));
}

/**
 * A tap has a carrier as long as somebody holds it open (drivers/net/tun.c). A QEMU that was killed lets go of its own
 * a moment after nobody finds it any more.
 */
async function takenTaps({ vms, doomed, links }: HostFitOptions): Promise<string[]> {
  const dying = new Set(doomed.map(({ name }) => name));
  const needed = vms.filter(({ name }) => !dying.has(name));
  const heldIn = (present: readonly Link[]) =>
    needed.flatMap(({ name, nics }) =>
      nics
        .filter(({ tap }) => present.some((link) => link.name === tap && link.carrier))
        .map(({ tap }) => `VM ${name}: its tap ${tap} is held by another process`),
    );
  return whatStays(tapBoundMs, heldIn(links), () => heldIn(readLinks()));
}

function changedMtus({ vms, links }: HostFitOptions): string[] {
  return vms.flatMap(({ nics }) =>
    nics.flatMap(({ tap, mtu }) => {
      const link = links.find(({ name }) => name === tap);
      return link === undefined || link.mtu === mtu
        ? []
        : [`the MTU of tap ${tap} is ${link.mtu} and was ${mtu}; it is left so`];
    }),
  );
}

/** RAM is mapped privately: what is not written stays the page cache's, so less may do than all VMs have. */
async function memoryFit({ vms, doomed }: HostFitOptions): Promise<Fit> {
  const neededBytes = vms.reduce((sum, { ram }) => sum + ram.bytes, 0);
  const host = parseMeminfo(await readFile('/proc/meminfo', 'utf8'));
  const freed = await Promise.all(doomed.map(({ pid }) => residentBytes(pid)));
  const availableBytes = freed.reduce((sum, bytes) => sum + bytes, host.availableBytes);
  const mebibytes = (bytes: number) => `${Math.floor(bytes / 1024 / 1024)} MiB`;
  if (neededBytes > host.totalBytes) {
    const text = `the VMs have ${mebibytes(neededBytes)} of RAM, and this host ${mebibytes(host.totalBytes)}`;
    return { misfits: [text], warnings: [] };
  }
  if (neededBytes <= availableBytes) return { misfits: [], warnings: [] };
  const text = `the VMs have ${mebibytes(neededBytes)} of RAM, and ${mebibytes(availableBytes)} are available: once they write to all of it, it will not do`;
  return { misfits: [], warnings: [text] };
}

export function parseMeminfo(text: string): { totalBytes: number; availableBytes: number } {
  const bytesOf = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]) * 1024;
  return { totalBytes: bytesOf('MemTotal') + bytesOf('SwapTotal'), availableBytes: bytesOf('MemAvailable') };
}

async function residentBytes(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024;
}
