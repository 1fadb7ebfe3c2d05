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
  const backends = ramBackends(options);
  if (backends.length > 1)
    reasons.push(`${backends.length} memory backends: RAM in several objects is not supported`);
  return reasons;
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

export interface RestoreImage {
  readonly ramFile: string;
  readonly ramBytes: number;
}

/**
 * The command line that loads a snapshot: RAM mapped privately from its file, waiting paused for the device
 * state. `-S` keeps it paused after the load; the machine type is left as it was written.
 */
export function forRestore(options: readonly CommandOption[], image: RestoreImage): CommandOption[] {
  const original = withoutRestoreOptions(options).filter(({ name }) => name !== 'S');
  const backend = ramBackends(original)[0];
  const ram = new Map(backend ?? [['qom-type', '']]);
  for (const key of ['mem-path', 'share', 'prealloc', 'pmem', 'hugetlb', 'hugetlbsize', 'seal'])
    ram.delete(key);
  ram.set('qom-type', 'memory-backend-file');
  if (backend === undefined) ram.set('id', restoredRamId);
  ram.set('size', String(image.ramBytes));
  ram.set('share', 'off');
  ram.set('mem-path', image.ramFile);
  const object: CommandOption = { name: 'object', value: formatParameters(ram, 'qom-type') };
  const rest = original.map((option) => {
    const same =
      option.name === 'object' && parseParameters(option.value ?? '', 'qom-type').get('id') === ram.get('id');
    return same ? object : option;
  });
  const added: CommandOption[] =
    backend === undefined ? [object, { name: 'machine', value: `memory-backend=${restoredRamId}` }] : [];
  return [...rest, ...added, { name: 'S', value: null }, { name: 'incoming', value: 'defer' }];
}

export function all(options: readonly CommandOption[], name: string): string[] {
  return options.flatMap((option) => (option.name === name && option.value !== null ? [option.value] : []));
}

function last(options: readonly CommandOption[], name: string): string | null {
  return all(options, name).at(-1) ?? null;
}
