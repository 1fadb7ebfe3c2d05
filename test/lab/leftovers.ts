import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { networkInterfaces } from 'node:os';

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Whatever is on the machine that has one of these words in its name: nothing, after a lab went down. */
export function leftovers(lab: string, links: readonly string[]): string[] {
  const namespaces = existsSync('/run/netns')
    ? readdirSync('/run/netns').filter((name) => name.startsWith(lab))
    : [];
  const processes = readdirSync('/proc')
    .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
    .filter((pid) => read(`/proc/${pid}/cmdline`).includes(lab));
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(lab));
  const interfaces = Object.keys(networkInterfaces()).concat(readdirSync('/sys/class/net'));
  return [
    ...namespaces.map((name) => `namespace ${name}`),
    ...processes.map((pid) => `process ${pid} ${read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')}`),
    ...mounts,
    ...links.filter((link) => interfaces.includes(link)).map((link) => `link ${link}`),
    ...(existsSync(`/var/lib/staghorn/lab/${lab}`) ? ['state directory'] : []),
  ];
}
