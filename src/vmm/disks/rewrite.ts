import { formatParameters, type CommandOption } from '../command-line.ts';
import {
  diskOptions,
  driveParameters,
  readNode,
  readParameters,
  type DiskKey,
  type DiskOption,
  type Parameters,
  type Scalar,
} from './drive-options.ts';

/**
 * A command line with other images behind its disks. Pure. Names, places on buses and all that a guest sees stay
 * as they were; what describes the image is replaced.
 */
export interface DiskReplacement extends DiskKey {
  /** Null: the drive has no medium. */
  readonly image: { readonly path: string; readonly format: string } | null;
  readonly readOnly: boolean;
  /** It is another file than the one that the command line names. */
  readonly moved?: boolean;
}

export function withDisks(
  options: readonly CommandOption[],
  replacements: readonly DiskReplacement[],
): CommandOption[] {
  const found = diskOptions(options);
  // Every disk that is written is on an overlay of its own now: `-snapshot` would add another, and lose it.
  let rewritten: (CommandOption | null)[] = options.map((option) =>
    option.name === 'snapshot' ? null : option,
  );
  for (const replacement of replacements) {
    const option = found.find((one) => matches(one, replacement));
    if (option === undefined) throw new Error(`no option for disk ${replacement.name}`);
    const old = options[option.index]!;
    if (option.kind === 'drive') rewritten[option.index] = replaceDrive(old, replacement);
    else if (replacement.image !== null && (!replacement.readOnly || replacement.moved === true))
      rewritten = replaceNode(rewritten, option.index, replacement.image);
  }
  return rewritten.filter((option) => option !== null);
}

const matches = (option: DiskOption, { kind, name }: DiskKey) =>
  option.kind === kind && option.names.includes(name);

/** What says which image it is, and how to read it; `file.aio` and `file.locking` are the drive's own. */
const imageKey =
  /^(file|driver|format|snapshot|offset|size|backing|backing\..*|data-file.*|file\.(?!aio$|locking$).*)$/;

function replaceDrive(
  option: CommandOption,
  { image, readOnly, moved = false }: DiskReplacement,
): CommandOption {
  const parameters = driveParameters(option)!;
  const kept = [...parameters].filter(([key]) => !imageKey.test(key));
  if (image === null) return drive(kept);
  // A read-only image stays what it is, but by a path that does not depend on where QEMU was started.
  if (readOnly && !moved) {
    const path = [...parameters].filter(([key]) => key !== 'snapshot');
    return drive(path.map(([key, value]) => [key, key === 'file' ? image.path : value]));
  }
  return drive([['file', image.path], ['format', image.format], ...kept]);
}

const drive = (parameters: readonly (readonly [string, string])[]): CommandOption => ({
  name: 'drive',
  value: formatParameters(new Map(parameters), ''),
});

const keptOfFormat = /^(node-name|read-only|auto-read-only|discard|detect-zeroes|force-share|cache\..*)$/;
const keptOfFile = /^(aio|locking|discard|cache\..*|aio-max-batch)$/;

/** The node keeps its name, so its device stays as it is; nodes that only it had used go. */
function replaceNode(
  options: readonly (CommandOption | null)[],
  index: number,
  image: { readonly path: string; readonly format: string },
): (CommandOption | null)[] {
  const option = options[index]!;
  const old = readNode(option);
  const isFile = old.get('driver') === 'file';
  const file = isFile ? old : fileOf(old, options);
  const node = new Map<string, Scalar>([
    ['driver', image.format],
    ...[...old].filter(([key]) => keptOfFormat.test(key)),
    ['file.driver', 'file'],
    ['file.filename', image.path],
    ...[...file]
      .filter(([key]) => keptOfFile.test(key))
      .map(([key, value]) => [`file.${key}`, value] as const),
  ]);
  const rewritten = [...options];
  rewritten[index] = { name: 'blockdev', value: formatNode(node, option.value!.startsWith('{')) };
  return withoutUnused(rewritten, referencesOf(old));
}

/** The protocol node below, written in place or as a node of its own. */
function fileOf(node: Parameters, options: readonly (CommandOption | null)[]): Parameters {
  const named = node.get('file');
  if (named === undefined)
    return new Map(
      [...node].flatMap(([key, value]) => (key.startsWith('file.') ? [[key.slice(5), value] as const] : [])),
    );
  const index = nodeIndex(options, String(named));
  return index === -1 ? new Map() : readNode(options[index]!);
}

const nodeIndex = (options: readonly (CommandOption | null)[], name: string) =>
  options.findIndex((option) => option?.name === 'blockdev' && readNode(option).get('node-name') === name);

const referencesOf = (node: Parameters): string[] =>
  [...node].flatMap(([key, value]) => (/(^|\.)(file|backing|data-file)$/.test(key) ? [String(value)] : []));

function withoutUnused(
  options: readonly (CommandOption | null)[],
  names: readonly string[],
): (CommandOption | null)[] {
  let left = [...options];
  for (const name of names) {
    const index = nodeIndex(left, name);
    if (index === -1 || left.some((option, at) => at !== index && mentions(option, name))) continue;
    const references = referencesOf(readNode(left[index]!));
    left[index] = null;
    left = withoutUnused(left, references);
  }
  return left;
}

const mentions = (option: CommandOption | null, name: string): boolean =>
  option !== null &&
  option.value !== null &&
  ['blockdev', 'device', 'drive'].includes(option.name ?? '') &&
  [...readParameters(option.value, 'driver')].some(([key, value]) => key !== 'node-name' && value === name);

function formatNode(node: Parameters, asJson: boolean): string {
  if (!asJson) return formatParameters(new Map([...node].map(([key, value]) => [key, String(value)])), '');
  const nested: Record<string, unknown> = {};
  for (const [key, value] of node) {
    const path = key.split('.');
    let at = nested;
    for (const step of path.slice(0, -1)) at = (at[step] ??= {}) as Record<string, unknown>;
    at[path.at(-1)!] = value;
  }
  return JSON.stringify(nested);
}
