import { compressEntries } from '../../archive/compress.ts';
import { firstVersion, type ArchiveHead } from '../../archive/portable.ts';
import { PortableReader } from '../../archive/read-portable.ts';
import { StaghornError } from '../../errors/index.ts';
import type { ImportInput, Snapshot } from '../../protocol/resources.ts';
import type { BarrierHost } from '../hosts/agent-barrier.ts';
import type { CareTools } from '../snapshots/snapshot-care.ts';
import type { OperationContext } from '../operations.ts';
import { writePart } from './part-channel.ts';
import { counted } from './transfer.ts';

const removeTimeoutMs = 60_000;

/**
 * Takes a portable archive into an experiment. All is checked before it is visible: the head and the names before
 * anything is written, and every part by its host. Whatever fails leaves nothing.
 */
export async function importSnapshot(
  tools: CareTools,
  content: AsyncIterable<Uint8Array>,
  input: ImportInput,
  { signal, report }: OperationContext,
): Promise<Snapshot> {
  const { catalog, experiments } = tools;
  const reader = await PortableReader.open(content);
  try {
    const placed = placeSnapshot(tools, reader.head, input);
    const hosts = await experiments.connect(input.experiment, new Set(placed.hosts.values()));
    catalog.putSnapshot({ snapshot: { ...placed.snapshot, state: 'storing' }, manifests: {} });
    const withoutImages = reader.head.version === firstVersion;
    const written: BarrierHost[] = [];
    try {
      for (const part of reader.head.parts) {
        const target = hosts.find(({ name }) => name === placed.hosts.get(part.host))!;
        const message = `the part of ${part.host} to ${target.name}`;
        const entries = counted(reader.part(part.host), (doneBytes) =>
          report({ step: 'import', message, doneBytes }),
        );
        const identity = { snapshot: placed.snapshot.id, manifestSha256: part.manifestSha256 };
        await writePart(target.link, identity, {
          content: compressEntries(entries),
          as: 'own',
          withoutImages,
          signal,
        });
        written.push(target);
      }
      await reader.requireEnd();
      catalog.putSnapshot({ snapshot: placed.snapshot, manifests: placed.manifests });
      return placed.snapshot;
    } catch (error) {
      await takeBack(tools, placed.snapshot, written);
      throw error;
    }
  } finally {
    await reader.close();
  }
}

interface Placed {
  readonly snapshot: Snapshot;
  readonly manifests: Readonly<Record<string, string>>;
  /** Which host of the experiment takes the part of which host of the archive. */
  readonly hosts: ReadonlyMap<string, string>;
}

/** The snapshot as it will be here. @throws StaghornError 'conflict', 'snapshot-unfit' or 'invalid-input' */
function placeSnapshot({ catalog, experiments }: CareTools, head: ArchiveHead, input: ImportInput): Placed {
  const { experiment, map = {} } = input;
  const { snapshot: before, parts } = head;
  if (catalog.findSnapshot(before.id) !== null)
    throw new StaghornError('conflict', `there is a snapshot ${before.id} already`);
  const name = input.name ?? before.name;
  if (name !== null && catalog.findSnapshotByName(experiment, name) !== null)
    throw new StaghornError('conflict', `experiment ${experiment} has a snapshot named ${name} already`);
  const hosts = placeHosts(
    parts.map(({ host }) => host),
    experiments.get(experiment).hosts,
    map,
  );
  const parent = before.parent === null ? null : (catalog.findSnapshot(before.parent)?.snapshot ?? null);
  return {
    hosts,
    manifests: Object.fromEntries(
      parts.map(({ host, manifestSha256 }) => [hosts.get(host)!, manifestSha256]),
    ),
    snapshot: {
      ...before,
      experiment,
      name,
      state: 'sealed',
      parent: parent?.experiment === experiment ? parent.id : null,
      vms: before.vms.map((vm) => ({ ...vm, host: hosts.get(vm.host) ?? vm.host })),
    },
  };
}

function placeHosts(
  from: readonly string[],
  known: readonly { readonly name: string }[],
  map: Readonly<Record<string, string>>,
): Map<string, string> {
  const names = new Set(known.map(({ name }) => name));
  const strange = Object.keys(map).filter((host) => !from.includes(host));
  if (strange.length > 0)
    throw new StaghornError('invalid-input', `the archive has no part of ${strange.join(', ')}`);
  const hosts = new Map(from.map((host) => [host, map[host] ?? host]));
  const missing = [...hosts.values()].filter((host) => !names.has(host));
  if (missing.length > 0) {
    const words = `the experiment has no host ${missing.join(', ')}; say which host takes which part ("map", --map)`;
    throw new StaghornError('snapshot-unfit', words, { context: { problems: missing } });
  }
  if (new Set(hosts.values()).size < hosts.size)
    throw new StaghornError('invalid-input', 'two parts of the archive cannot go to one host');
  return hosts;
}

/** Only what this import has written: a host may have the snapshot from elsewhere. */
async function takeBack(
  { catalog }: CareTools,
  snapshot: Snapshot,
  written: readonly BarrierHost[],
): Promise<void> {
  const removals = await Promise.allSettled(
    written.map(({ link }) => link.call('removeSnapshot', { snapshot: snapshot.id }, removeTimeoutMs)),
  );
  const left = removals.some(({ status }) => status === 'rejected');
  // What could not be removed stays listed, so that somebody can delete it when the host is back.
  if (left) catalog.putSnapshot({ snapshot: { ...snapshot, state: 'failed' }, manifests: {} });
  else catalog.removeSnapshot(snapshot.id);
}
