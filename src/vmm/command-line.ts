/**
 * QEMU command lines, read and rewritten (qemu(1)). Pure: argv in, argv out.
 */
export interface CommandOption {
  /** Without dashes: `-machine`, `--machine` and `-M` are all "machine". Null: a bare disk image. */
  readonly name: string | null;
  readonly value: string | null;
}

/** Options of QEMU 5.0 to 9.x that take no argument (qemu-options.hx); every other takes one. */
const flags = new Set(
  (
    'h help version S daemonize nodefaults no-user-config nographic enable-kvm no-reboot no-shutdown no-hpet ' +
    'no-acpi snapshot full-screen only-migratable preconfig usb win2k-hack no-fd-bootchk singlestep one-insn-per-tb ' +
    's mem-prealloc portrait nouserconfig curses enable-fips async-teardown no-frame alt-grab ctrl-grab no-quit ' +
    'enable-sync-profile old-param semihosting xen-attach'
  ).split(' '),
);
const aliases: Readonly<Record<string, string>> = { M: 'machine' };

/** The id of the memory backend that a restore adds; it is taken out again when such a VM is snapshotted. */
export const restoredRamId = 'staghorn-ram';

/** argv without the program itself, as options in order. */
export function parseCommandLine(args: readonly string[]): CommandOption[] {
  const options: CommandOption[] = [];
  for (let i = 0; i < args.length; i++) {
    const token = args[i]!;
    if (!token.startsWith('-') || token === '-') {
      options.push({ name: null, value: token });
      continue;
    }
    const bare = token.replace(/^--?/, '');
    const name = aliases[bare] ?? bare;
    options.push(flags.has(name) ? { name, value: null } : { name, value: args[++i] ?? '' });
  }
  return options;
}

export function formatCommandLine(options: readonly CommandOption[]): string[] {
  return options.flatMap(({ name, value }) =>
    name === null ? [value ?? ''] : value === null ? [`-${name}`] : [`-${name}`, value],
  );
}

/** A QemuOpts string, `a,b=c,d=e,,f`: a leading value without a key goes under `impliedKey`; `,,` is a comma. */
export function parseParameters(text: string, impliedKey: string): Map<string, string> {
  const parameters = new Map<string, string>();
  const parts = splitCommas(text);
  parts.forEach((part, index) => {
    const equals = part.indexOf('=');
    if (equals >= 0) parameters.set(part.slice(0, equals), part.slice(equals + 1));
    else if (index === 0) parameters.set(impliedKey, part);
    else parameters.set(part, 'on');
  });
  return parameters;
}

function splitCommas(text: string): string[] {
  return text
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ','));
}

const escapeCommas = (text: string) => text.replaceAll(',', ',,');

export function formatParameters(parameters: ReadonlyMap<string, string>, impliedKey: string): string {
  return [...parameters]
    .map(([key, value]) => (key === impliedKey ? escapeCommas(value) : `${key}=${escapeCommas(value)}`))
    .join(',');
}

/** The VM's name as `-name` gives it, or null. */
export function vmName(options: readonly CommandOption[]): string | null {
  const value = last(options, 'name');
  return value === null ? null : (parseParameters(value, 'guest').get('guest') ?? null);
}

/** Paths of every unix socket that speaks QMP, in the order of the command line. */
export function qmpSocketPaths(options: readonly CommandOption[]): string[] {
  const chardevs = new Map<string, string>();
  for (const value of all(options, 'chardev')) {
    const parameters = parseParameters(value, 'backend');
    const [id, path] = [parameters.get('id'), parameters.get('path')];
    if (parameters.get('backend') === 'socket' && id !== undefined && path !== undefined)
      chardevs.set(id, path);
  }
  const paths: string[] = [];
  for (const { name, value } of options) {
    if ((name === 'qmp' || name === 'qmp-pretty') && value?.startsWith('unix:')) {
      paths.push(splitCommas(value.slice('unix:'.length))[0]!);
    }
    if (name === 'mon' && value !== null) {
      const parameters = parseParameters(value, 'chardev');
      const path = chardevs.get(parameters.get('chardev') ?? '');
      if (parameters.get('mode') === 'control' && path !== undefined) paths.push(path);
    }
  }
  return paths;
}

/** Everything in the command line that a restore could not bring back, in words. */
export function unrestorableOptions(options: readonly CommandOption[]): string[] {
  const reasons: string[] = [];
  for (const value of all(options, 'netdev')) {
    const parameters = parseParameters(value, 'type');
    if (parameters.get('type') !== 'tap') continue;
    if (parameters.has('fd') || parameters.has('fds')) {
      reasons.push(
        `-netdev ${value}: its tap came as a descriptor (fd=), which a restore cannot open again by name`,
      );
    }
  }
  for (const value of all(options, 'incoming')) {
    if (value !== 'defer') reasons.push(`-incoming ${value}: the VM is waiting for a migration`);
  }
  if (all(options, 'add-fd').length > 0)
    reasons.push('-add-fd: inherited descriptors cannot be opened again');
  return [...reasons, ...vhostUserObstacles(options)];
}

/** A restore maps RAM privately (docs/decisions/0015): a process that shares it would see nothing of it any more. */
function vhostUserObstacles(options: readonly CommandOption[]): string[] {
  return all(options, 'device')
    .filter((value) => /^vhost-user-|^ivshmem-/.test(parseParameters(value, 'driver').get('driver') ?? ''))
    .map((value) => `-device ${value}: another process shares its RAM, and would lose it at a restore`);
}

/** The first option of a name with this value of a parameter, or null. */
export function findOption(
  options: readonly CommandOption[],
  name: string,
  key: string,
  value: string,
): string | null {
  return all(options, name).find((text) => parseParameters(text, 'driver').get(key) === value) ?? null;
}

/** The `-object memory-backend-*` options that are guest RAM. */
function ramBackends(options: readonly CommandOption[]): Map<string, string>[] {
  return all(options, 'object')
    .map((value) => parseParameters(value, 'qom-type'))
    .filter((parameters) => parameters.get('qom-type')?.startsWith('memory-backend-'));
}

/** Whether this is the command line of a restore whose RAM comes from a file in this directory. */
export function isRestoreFrom(options: readonly CommandOption[], directory: string): boolean {
  const loads = options.some(({ name, value }) => name === 'incoming' && value === 'defer');
  return (
    loads && ramBackends(options).some((backend) => backend.get('mem-path')?.startsWith(`${directory}/`))
  );
}

/** The command line as the VM's owner wrote it: without what an earlier restore put in. */
export function withoutRestoreOptions(options: readonly CommandOption[]): CommandOption[] {
  const restored = ramBackends(options).some((backend) => backend.get('id') === restoredRamId);
  return options.flatMap((option): CommandOption[] => {
    if (option.name === 'incoming') return [];
    if (!restored) return [option];
    if (option.name === 'S') return [];
    if (
      option.name === 'object' &&
      parseParameters(option.value ?? '', 'qom-type').get('id') === restoredRamId
    ) {
      return [];
    }
    if (option.name === 'machine' && option.value !== null) {
      const parameters = parseParameters(option.value, 'type');
      if (parameters.get('memory-backend') === restoredRamId) parameters.delete('memory-backend');
      return parameters.size === 0 ? [] : [{ name: 'machine', value: formatParameters(parameters, 'type') }];
    }
    return [option];
  });
}

/** RAM in a memory object of its own, and the file it is stored in. */
export interface RestoreBackend {
  readonly id: string;
  /** A `-device` to add: it was plugged in while the VM ran. */
  readonly device: string | null;
  readonly file: string;
  readonly bytes: number;
}

export interface RestoreImage {
  readonly ramFile: string;
  readonly ramBytes: number;
  /** Beside main memory. */
  readonly backends: readonly RestoreBackend[];
}

/**
 * The command line that loads a snapshot: RAM mapped privately from its files, waiting paused for the device
 * state. `-S` keeps it paused after the load; the machine type is left as it was written.
 */
export function forRestore(options: readonly CommandOption[], image: RestoreImage): CommandOption[] {
  const original = withoutRestoreOptions(options).filter(({ name }) => name !== 'S');
  const ids = image.backends.map(({ id }) => id);
  const main = ramBackends(original).find((backend) => !ids.includes(backend.get('id') ?? ''));
  const named = main?.get('id') ?? restoredRamId;
  const images = [{ id: named, file: image.ramFile, bytes: image.ramBytes }, ...image.backends];
  const rest = images.reduce((result, one) => withBackend(result, one), original);
  const devices = image.backends.flatMap(({ device }): CommandOption[] =>
    device === null ? [] : [{ name: 'device', value: device }],
  );
  const machine: CommandOption[] =
    main === undefined ? [{ name: 'machine', value: `memory-backend=${restoredRamId}` }] : [];
  return [...rest, ...machine, ...devices, { name: 'S', value: null }, { name: 'incoming', value: 'defer' }];
}

/** With a memory object that maps the file: in place of the one of this id, or added. */
function withBackend(
  options: readonly CommandOption[],
  { id, file, bytes }: { id: string; file: string; bytes: number },
): CommandOption[] {
  const written = ramBackends(options).find((backend) => backend.get('id') === id);
  const ram = new Map(written ?? [['qom-type', '']]);
  for (const key of ['mem-path', 'share', 'prealloc', 'pmem', 'hugetlb', 'hugetlbsize', 'seal'])
    ram.delete(key);
  ram.set('qom-type', 'memory-backend-file').set('id', id);
  ram.set('size', String(bytes)).set('share', 'off').set('mem-path', file);
  const object: CommandOption = { name: 'object', value: formatParameters(ram, 'qom-type') };
  if (written === undefined) return [...options, object];
  return options.map((option) =>
    option.name === 'object' && parseParameters(option.value ?? '', 'qom-type').get('id') === id
      ? object
      : option,
  );
}

/** The same with the machine type by its full name; other properties of the machine stay. */
export function withMachineType(
  options: readonly CommandOption[],
  machineType: string,
): readonly CommandOption[] {
  const named = options.findLast(
    ({ name, value }) => name === 'machine' && parseParameters(value ?? '', 'type').has('type'),
  );
  if (named === undefined || named.value === null)
    return [...options, { name: 'machine', value: machineType }];
  const parameters = parseParameters(named.value, 'type').set('type', machineType);
  const full: CommandOption = { name: 'machine', value: formatParameters(parameters, 'type') };
  return options.map((option) => (option === named ? full : option));
}

export function all(options: readonly CommandOption[], name: string): string[] {
  return options.flatMap((option) => (option.name === name && option.value !== null ? [option.value] : []));
}

function last(options: readonly CommandOption[], name: string): string | null {
  return all(options, name).at(-1) ?? null;
}
