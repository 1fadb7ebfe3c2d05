import { readFileSync } from 'node:fs';

/** How many frames QEMU has put into these taps: what a tap's device has received (proc_net_dev of the kernel). */
export function framesSentBy(taps: readonly string[], table = readFileSync('/proc/net/dev', 'utf8')): number {
  return table.split('\n').reduce((sum, line) => {
    const [, name = '', packets = '0'] = /^\s*(.+?):\s*\d+\s+(\d+)/.exec(line) ?? [];
    return taps.includes(name) ? sum + Number(packets) : sum;
  }, 0);
}
