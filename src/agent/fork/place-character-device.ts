import { isOn, readOption, valueOf, withValue, writeOption, type OptionText } from './command-parts.ts';
import type { OwnPlaces } from './own-places.ts';

/** An option as a copy of the VM gets it, or in words why a copy cannot have it beside its original. */
export type Placed = { readonly value: string } | { readonly obstacle: string };

/** Back ends that keep to their own process, or that the kernel hands out anew for each (qemu(1), -chardev). */
const ownBackends = ['null', 'vc', 'ringbuf', 'memory', 'stdio', 'pty', 'msmouse', 'wctablet', 'testdev'];

/** `-chardev BACKEND,id=…`. */
export function placeChardev(text: string, places: OwnPlaces): Placed {
  const option = readOption(text, 'backend');
  const backend = valueOf(option, 'backend') ?? '';
  const logged = withOwnPath(option, 'logfile', places);
  if (logged === null) return { obstacle: 'its log goes to a device of the host' };
  if (ownBackends.includes(backend) || backend.startsWith('spice') || backend === 'qemu-vdagent')
    return { value: writeOption(logged) };
  if (backend === 'file') return ownOr(logged, 'path', places);
  if (backend === 'socket') return placeSocket(logged, places);
  return { obstacle: `a ${backend} leads out of the VM` };
}

function placeSocket(option: OptionText, places: OwnPlaces): Placed {
  if (!isOn(valueOf(option, 'server')))
    return { obstacle: 'it connects to a program outside, which would get two peers' };
  if (valueOf(option, 'fd') !== undefined) return { obstacle: 'its socket was inherited' };
  if (valueOf(option, 'path') !== undefined) return ownOr(option, 'path', places);
  return { value: writeOption(withValue(option, 'port', freePort)) };
}

/** The kernel chooses one that is free (ip(7)); QMP's query-chardev tells which. */
const freePort = '0';

function ownOr(option: OptionText, key: string, places: OwnPlaces): Placed {
  const placed = withOwnPath(option, key, places);
  return placed === null
    ? { obstacle: `${valueOf(option, key)} is a device of the host` }
    : { value: writeOption(placed) };
}

/** The same if it has no such key; null if that names a device. */
export function withOwnPath(option: OptionText, key: string, places: OwnPlaces): OptionText | null {
  const path = valueOf(option, key);
  if (path === undefined) return option;
  const place = places.placeOf(path);
  return place === null ? null : withValue(option, key, place);
}

const ownWords = /^(none|null|stdio|pty|msmouse|wctablet|testdev|chardev:.*|vc(:.*)?|ringbuf(:.*)?)$/;

/** What -serial, -parallel, -monitor, -qmp, -gdb and others take (qemu(1), "-serial dev"). */
export function placeCharacterDevice(text: string, places: OwnPlaces, listens = false): Placed {
  if (ownWords.test(text)) return { value: text };
  const colon = text.indexOf(':');
  const [kind, rest] = [text.slice(0, colon), text.slice(colon + 1)];
  if (kind === 'mon') return mapped(placeCharacterDevice(rest, places, listens), (value) => `mon:${value}`);
  if (kind === 'file') return mapped(placeFile(rest, places), (value) => `file:${value}`);
  if (!['unix', 'tcp', 'telnet', 'websocket', 'tn3270'].includes(kind))
    return { obstacle: 'it leads out of the VM' };
  const option = readOption(rest, 'address');
  if (!listens && !isOn(valueOf(option, 'server')))
    return { obstacle: 'it connects to a program outside, which would get two peers' };
  if (kind === 'unix') return mapped(ownOr(option, 'address', places), (value) => `unix:${value}`);
  const [address = '', ...others] = option.parts;
  const host = address.slice(0, Math.max(0, address.lastIndexOf(':')));
  return { value: `${kind}:${[`${host}:${freePort}`, ...others].join(',')}` };
}

/** A file name alone, to which commas mean nothing. */
export function placeFile(path: string, places: OwnPlaces): Placed {
  const place = places.placeOf(path);
  return place === null ? { obstacle: `${path} is a device of the host` } : { value: place };
}

const mapped = (placed: Placed, change: (value: string) => string): Placed =>
  'value' in placed ? { value: change(placed.value) } : placed;
