import { forkVmName } from '../../protocol/fork.ts';
import type { CommandOption } from '../../vmm/command-line.ts';
import { isOn, readOption, valueOf, without, withValue, writeOption } from './command-parts.ts';
import { placedDevice } from './names.ts';
import type { OwnPlaces } from './own-places.ts';
import {
  placeCharacterDevice,
  placeChardev,
  placeFile,
  withOwnPath,
  type Placed,
} from './place-character-device.ts';

export interface CommandLinePlaces {
  readonly fork: number;
  readonly files: OwnPlaces;
  /** The tap of each netdev in the fork, by the netdev's id. */
  readonly taps: ReadonlyMap<string, string>;
}

export interface PlacedCommandLine {
  readonly options: readonly CommandOption[];
  /** What a copy cannot have beside its original, in words. */
  readonly obstacles: readonly string[];
}

/**
 * The command line of a VM's copy: what it writes, listens on and is plugged into is its own, and everything that its
 * guest sees is the same.
 */
export function placeCommandLine(
  options: readonly CommandOption[],
  places: CommandLinePlaces,
): PlacedCommandLine {
  const obstacles: string[] = [];
  const placed = options.map((option): CommandOption => {
    const { name, value } = option;
    // Short for -gdb tcp::1234.
    if (name === 's' && value === null) return { name: 'gdb', value: 'tcp::0' };
    if (name === null || value === null || !Object.hasOwn(placers, name)) return option;
    const result = placers[name]!(value, places);
    if ('value' in result) return { name, value: result.value };
    obstacles.push(`-${name} ${value}: ${result.obstacle}`);
    return option;
  });
  return { options: placed, obstacles };
}

type Placer = (value: string, places: CommandLinePlaces) => Placed;

const characterDevice: Placer = (value, { files }) => placeCharacterDevice(value, files);
const file: Placer = (value, { files }) => placeFile(value, files);

function pathUnder(key: string, impliedKey: string): Placer {
  return (value, { files }) => {
    const placed = withOwnPath(readOption(value, impliedKey), key, files);
    return placed === null
      ? { obstacle: 'it writes to a device of the host' }
      : { value: writeOption(placed) };
  };
}

const name: Placer = (value, { fork }) => {
  const option = readOption(value, 'guest');
  const guest = valueOf(option, 'guest');
  return {
    value: guest === undefined ? value : writeOption(withValue(option, 'guest', forkVmName(guest, fork))),
  };
};

/** Open vSwitch is set up by the restore: a script would plug the tap into the original's bridge. */
const network: Placer = (value, { fork, taps }) => {
  const option = readOption(value, 'type');
  const type = valueOf(option, 'type');
  if (type === 'tap') {
    const tap = taps.get(valueOf(option, 'id') ?? '') ?? placedDevice(valueOf(option, 'ifname') ?? '', fork);
    const own = withValue(without(without(option, 'br'), 'helper'), 'ifname', tap);
    return { value: writeOption(withValue(withValue(own, 'script', 'no'), 'downscript', 'no')) };
  }
  if (type === 'user' && valueOf(option, 'hostfwd') !== undefined)
    return { obstacle: 'a port of the host cannot be forwarded to two VMs' };
  return ['user', 'none', 'nic', 'hubport'].includes(type ?? '')
    ? { value }
    : { obstacle: `a network of type ${type} leads out of the experiment` };
};

/** How far VNC looks for a display that is free, and the highest number that QEMU tries. */
const lastDisplay = '9999';

const vnc: Placer = (value, { files }) => {
  const option = readOption(value, 'vnc');
  const address = valueOf(option, 'vnc') ?? '';
  if (address === 'none') return { value };
  if (isOn(valueOf(option, 'reverse'))) return { obstacle: 'it connects to a viewer outside' };
  if (address.startsWith('unix:')) {
    const place = files.placeOf(address.slice('unix:'.length));
    return place === null ? { obstacle: 'its socket is a device' } : ownDisplay(`unix:${place}`);
  }
  return ownDisplay(address, lastDisplay);

  function ownDisplay(display: string, to?: string): Placed {
    const own = withValue(option, 'vnc', display);
    const ranged = to === undefined ? own : withValue(own, 'to', to);
    const websocket = valueOf(option, 'websocket');
    return {
      value: writeOption(
        websocket === undefined || websocket === 'off' ? ranged : withValue(ranged, 'websocket', 'on'),
      ),
    };
  }
};

const display: Placer = (value, places) => {
  if (!value.startsWith('vnc=')) return { value };
  const placed = vnc(value.slice('vnc='.length), places);
  return 'value' in placed ? { value: `vnc=${placed.value}` } : placed;
};

const spice: Placer = (value, { files }) => {
  const option = readOption(value, 'port');
  if (!isOn(valueOf(option, 'unix')))
    return { obstacle: 'QEMU finds no free port for SPICE by itself; use unix=on or VNC' };
  const placed = withOwnPath(option, 'addr', files);
  return placed === null ? { obstacle: 'its socket is a device' } : { value: writeOption(placed) };
};

const sharedFolder: Placer = (value) =>
  isOn(valueOf(readOption(value, 'driver'), 'readonly'))
    ? { value }
    : { obstacle: 'the copies would write to one folder of the host' };

/** What is one on the host, or is known on the host by a number that the guest knows too. */
const hostDevices =
  /^(vfio-|usb-host|usb-redir|scsi-block|scsi-generic|ivshmem|vhost-vsock|vhost-scsi|vhost-user|virtio-input-host)/;

const device: Placer = (value) => {
  const driver = value.startsWith('{')
    ? (/"driver"\s*:\s*"([^"]*)"/.exec(value)?.[1] ?? '')
    : (valueOf(readOption(value, 'driver'), 'driver') ?? '');
  return hostDevices.test(driver) ? { obstacle: 'a device of the host cannot be had twice' } : { value };
};

const object: Placer = (value, places) => {
  const type = valueOf(readOption(value, 'qom-type'), 'qom-type') ?? '';
  if (/^(input-linux|can-host-socketcan|x-vfio-user-server)$/.test(type))
    return { obstacle: 'a device of the host cannot be had twice' };
  return type === 'filter-dump' ? pathUnder('file', 'qom-type')(value, places) : { value };
};

const refused =
  (obstacle: string): Placer =>
  () => ({ obstacle });

const tpm: Placer = (value) =>
  value.startsWith('passthrough') ? { obstacle: 'a device of the host cannot be had twice' } : { value };

const usb: Placer = (value) =>
  value.startsWith('host') ? { obstacle: 'a device of the host cannot be had twice' } : { value };

const placers: Readonly<Record<string, Placer>> = {
  name,
  ...{ netdev: network, nic: network, net: network },
  ...{ serial: characterDevice, parallel: characterDevice, monitor: characterDevice },
  ...{ qmp: characterDevice, 'qmp-pretty': characterDevice, debugcon: characterDevice },
  ...{ virtioconsole: characterDevice, qtest: characterDevice },
  gdb: (value, { files }) => placeCharacterDevice(value, files, true),
  chardev: (value, { files }) => placeChardev(value, files),
  ...{ pidfile: file, D: file, 'qtest-log': file },
  trace: pathUnder('file', 'enable'),
  audiodev: pathUnder('path', 'driver'),
  ...{ vnc, display, spice, device, object, tpmdev: tpm, usbdevice: usb },
  ...{ virtfs: sharedFolder, fsdev: sharedFolder },
  readconfig: refused('what it sets is not looked into'),
  writeconfig: refused('the copies would write one file'),
};
