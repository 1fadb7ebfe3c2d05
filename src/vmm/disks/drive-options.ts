import { all, parseParameters, type CommandOption } from '../command-line.ts';

/**
 * Which options of a QEMU command line give the VM its disks, and by what name QEMU knows each (query-block). Pure.
 */
export interface DiskOption {
  /** Its place among the options; of a `-blockdev` that of the node that the device is given. */
  readonly index: number;
  readonly kind: 'drive' | 'blockdev';
  /** The names of the drive: without an id QEMU makes one, by a bus that depends on the machine. Or the node's. */
  readonly names: readonly string[];
  /** Of a `-blockdev`: the id of its device, or the number of its device among those without an id. */
  readonly device: string | number | null;
}

/** What identifies a disk on the command line of its VM, also after a restore has rewritten it. */
export interface DiskKey {
  readonly kind: 'drive' | 'blockdev';
  readonly name: string;
}

interface Shortcut {
  readonly if?: string;
  readonly index?: number;
  readonly media?: 'disk' | 'cdrom';
}

/** `-hda FILE` and its like, as QEMU's softmmu/vl.c makes drives of them; null is a bare file name. */
const shortcuts: ReadonlyMap<string | null, Shortcut> = new Map<string | null, Shortcut>([
  [null, { index: 0, media: 'disk' }],
  ['hda', { index: 0, media: 'disk' }],
  ['hdb', { index: 1, media: 'disk' }],
  ['hdc', { index: 2, media: 'disk' }],
  ['hdd', { index: 3, media: 'disk' }],
  ['cdrom', { index: 2, media: 'cdrom' }],
  ['fda', { if: 'floppy', index: 0 }],
  ['fdb', { if: 'floppy', index: 1 }],
  ['pflash', { if: 'pflash' }],
  ['mtdblock', { if: 'mtd' }],
  ['sd', { if: 'sd' }],
]);

/** The parameters of `-drive`, or what it takes to say the same as a shortcut does; null: it is no drive. */
export function driveParameters({ name, value }: CommandOption): Map<string, string> | null {
  if (value === null) return null;
  if (name === 'drive') return parseParameters(value, '');
  const shortcut = shortcuts.get(name);
  if (shortcut === undefined) return null;
  const parameters = Object.entries(shortcut).map(([key, text]) => [key, String(text)] as const);
  return new Map([...parameters, ['file', value]]);
}

export function diskOptions(options: readonly CommandOption[]): DiskOption[] {
  return [...drives(options), ...blockdevs(options)].sort((a, b) => a.index - b.index);
}

/** The default bus is IDE on PCs and virtio elsewhere (block_default_type of the machine). */
function drives(options: readonly CommandOption[]): DiskOption[] {
  const [ide, virtio] = [driveNames(options, 'ide'), driveNames(options, 'virtio')];
  return options.flatMap((option, index) => {
    if (driveParameters(option) === null) return [];
    const names = [...new Set([ide.get(index)!, virtio.get(index)!])];
    return [{ index, kind: 'drive' as const, names, device: null }];
  });
}

/** Names as drive_new in QEMU's blockdev.c makes them: the first free place where none is asked for. */
function driveNames(options: readonly CommandOption[], defaultBus: string): Map<number, string> {
  const taken = new Set<string>();
  const perBus = devicesPerBus(options);
  const names = new Map<number, string>();
  options.forEach((option, index) => {
    const parameters = driveParameters(option);
    if (parameters === null) return;
    const type = parameters.get('if') ?? defaultBus;
    const most = perBus.get(type) ?? 0;
    let { bus, unit } = placeOf(parameters, most);
    const key = (onBus: number, asUnit: number) => `${type} ${onBus} ${asUnit}`;
    while (unit < 0 || (!parameters.has('unit') && !parameters.has('index') && taken.has(key(bus, unit)))) {
      unit++;
      if (most > 0 && unit >= most) [bus, unit] = [bus + 1, 0];
    }
    taken.add(key(bus, unit));
    const isCdrom = parameters.get('media') === 'cdrom';
    const medium = type === 'ide' || type === 'scsi' ? (isCdrom ? '-cd' : '-hd') : '';
    names.set(index, parameters.get('id') ?? `${type}${most > 0 ? bus : ''}${medium}${unit}`);
  });
  return names;
}

function placeOf(parameters: ReadonlyMap<string, string>, most: number): { bus: number; unit: number } {
  const place = parameters.get('index');
  if (place !== undefined) {
    const number = Number(place);
    return most > 0 ? { bus: Math.floor(number / most), unit: number % most } : { bus: 0, unit: number };
  }
  return { bus: Number(parameters.get('bus') ?? 0), unit: Number(parameters.get('unit') ?? -1) };
}

/** if_max_devs in blockdev.c; q35 has one device a SATA port (units_per_default_bus). */
function devicesPerBus(options: readonly CommandOption[]): Map<string, number> {
  const isQ35 = all(options, 'machine').some((value) =>
    (parseParameters(value, 'type').get('type') ?? '').includes('q35'),
  );
  return new Map([
    ['ide', isQ35 ? 1 : 2],
    ['scsi', 7],
  ]);
}

function blockdevs(options: readonly CommandOption[]): DiskOption[] {
  const nodes = new Map(
    options.flatMap((option, index) =>
      option.name === 'blockdev' ? [[String(readNode(option).get('node-name')), index] as const] : [],
    ),
  );
  const found: DiskOption[] = [];
  let anonymous = 0;
  for (const value of all(options, 'device')) {
    const parameters = readParameters(value, 'driver');
    const [id, node] = [parameters.get('id'), parameters.get('drive')];
    // QEMU counts the devices without an id as device[0], device[1], … (qdev_set_id in softmmu/qdev-monitor.c).
    const device = id === undefined ? anonymous++ : String(id);
    const index = nodes.get(String(node));
    if (index !== undefined) found.push({ index, kind: 'blockdev', names: [String(node)], device });
  }
  return found;
}

export type Scalar = string | number | boolean | null;
export type Parameters = ReadonlyMap<string, Scalar>;

export const readNode = ({ value }: CommandOption): Parameters => readParameters(value ?? '', 'driver');

/** Parameters of an option that may be JSON, with nested keys as dotted ones. */
export function readParameters(value: string, impliedKey: string): Parameters {
  if (!value.startsWith('{')) return parseParameters(value, impliedKey);
  try {
    return new Map(flatten(JSON.parse(value) as object, ''));
  } catch {
    return new Map();
  }
}

function flatten(object: object, prefix: string): [string, Scalar][] {
  return Object.entries(object).flatMap(([key, value]): [string, Scalar][] =>
    typeof value === 'object' && value !== null
      ? flatten(value as object, `${prefix}${key}.`)
      : [[`${prefix}${key}`, value as Scalar]],
  );
}

/** The option behind a device of query-block; null: it came later, or from elsewhere. */
export function optionOfDevice(
  found: readonly DiskOption[],
  { device, qdev }: { readonly device: string; readonly qdev?: string },
): DiskKey | null {
  if (device !== '') {
    const drive = found.find(({ kind, names }) => kind === 'drive' && names.includes(device));
    return drive === undefined ? null : { kind: 'drive', name: device };
  }
  const id = /^\/machine\/peripheral\/([^/]+)/.exec(qdev ?? '')?.[1] ?? qdev;
  const anonymous = /^\/machine\/peripheral-anon\/device\[(\d+)\]/.exec(qdev ?? '')?.[1];
  const own = anonymous === undefined ? id : Number(anonymous);
  const node = found.find(({ kind, device: of }) => kind === 'blockdev' && of !== null && of === own);
  return node === undefined ? null : { kind: 'blockdev', name: node.names[0]! };
}
