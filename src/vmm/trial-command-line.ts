import { formatParameters, parseParameters, type CommandOption } from './command-line.ts';

/** What a trial has no use for, and what would take a path, a port or a screen from the VM that may be running. */
const dropped = new Set([
  ...['qmp', 'qmp-pretty', 'mon', 'monitor', 'pidfile', 'daemonize', 'D', 'd', 'trace', 'gdb', 's'],
  ...['vnc', 'spice', 'display', 'nographic', 'curses', 'chroot', 'runas', 'debugcon', 'incoming'],
]);
const toNull = new Set(['serial', 'parallel']);
const tapTypes = new Set(['tap', 'bridge']);

export interface TrialPaths {
  readonly qmpSocket: string;
}

/**
 * The command line of a VM, changed so that its device state can be loaded beside the running VM: the same machine
 * with the same devices, and nothing else of the same. It must run in a network namespace of its own: its taps are
 * made there, since virtio-net loads only with a peer that can do what the tap could (QEMU hw/net/virtio-net.c,
 * virtio_net_post_load_device). Pure.
 */
export function forTrial(options: readonly CommandOption[], { qmpSocket }: TrialPaths): CommandOption[] {
  const kept = options.flatMap((option): CommandOption[] => {
    const { name, value } = option;
    if (name === null || value === null) return name !== null && dropped.has(name) ? [] : [option];
    if (dropped.has(name)) return [];
    if (toNull.has(name)) return [{ name, value: value.startsWith('chardev:') ? value : 'null' }];
    if (name === 'chardev') return [{ name, value: nullChardev(value) }];
    if (name === 'netdev' || name === 'nic' || name === 'net') return [{ name, value: privateTap(value) }];
    return [option];
  });
  const added: CommandOption[] = [
    { name: 'display', value: 'none' },
    { name: 'qmp', value: `unix:${qmpSocket},server=on,wait=off` },
  ];
  return [...kept, ...added];
}

/** What a character device leads to is not in the device state. */
function nullChardev(value: string): string {
  const given = parseParameters(value, 'backend');
  const parameters = new Map([['backend', 'null']]);
  for (const key of ['id', 'mux']) if (given.has(key)) parameters.set(key, given.get(key)!);
  return formatParameters(parameters, 'backend');
}

/** A tap of the namespace: no script is run, which would plug it into a switch. */
function privateTap(value: string): string {
  const parameters = parseParameters(value, 'type');
  if (!tapTypes.has(parameters.get('type') ?? '')) return value;
  parameters.set('type', 'tap');
  for (const key of ['helper', 'br']) parameters.delete(key);
  return formatParameters(parameters.set('script', 'no').set('downscript', 'no'), 'type');
}
