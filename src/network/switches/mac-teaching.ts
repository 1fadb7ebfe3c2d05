import { UnixctlClient } from '../../unixctl/index.ts';
import { parseMacTable, type MacEntry } from './mac-table.ts';
import { ofctl } from './ovs-ofctl.ts';

/** An entry that a bridge's MAC table is to have, with what the switch calls its port. */
export interface MacLesson {
  readonly interface: string;
  /** The number of OpenFlow. */
  readonly port: number | 'LOCAL';
  /** The VLAN that the port gives to untagged frames; 0 for none. */
  readonly untaggedVlan: number;
  readonly vlan: number;
  readonly mac: string;
  readonly ageS: number | null;
}

/** IEEE 802 local experimental EtherType 2. No port ever sends the frames of a lesson. */
const LESSON_ETHER_TYPE = '88b6';
const VLAN_ETHER_TYPE = '8100';
const SHORTEST_FRAME_BYTES = 60;

/**
 * Makes a bridge's MAC table what the lessons say; static entries that are there stay, and so does what is right.
 * Learnt entries must age as before, which those of `fdb/add` never do. So the switch is given a frame from each
 * address on its port (PACKET_OUT to NORMAL), and learns. Its destination is an anchor, a static entry that stands
 * behind the very same port until all is learnt: NORMAL drops what would leave by the port that it came in by
 * (xlate_normal in ofproto/ofproto-dpif-xlate.c). To its own source it would not be sent back but flooded, for the
 * switch looks the destination up before it learns the source.
 * @returns lessons that were not taken, in words
 */
export async function teachMacTable(
  bridge: string,
  lessons: readonly MacLesson[],
  signal?: AbortSignal,
): Promise<string[]> {
  const client = await UnixctlClient.connect({ signal });
  const command = (name: string, ...args: (string | number)[]) =>
    client.run(`fdb/${name}`, [bridge, ...args.map(String)], { signal });
  try {
    const { missing, surplus } = compareMacTable(lessons, parseMacTable(await command('show')));
    if (missing.length === 0 && surplus.length === 0) return [];
    const learnt = oldestFirst(missing.filter(({ ageS }) => ageS !== null));
    const anchors = anchorsOf(learnt);
    try {
      for (const { place, vlan, mac } of anchors.values()) await command('add', place, vlan, mac);
      if (learnt.length > 0) await sendLessons(bridge, learnt, anchors, signal);
    } finally {
      // Also when the restore was given up: without its signal.
      const removals = [...anchors.values()].map(({ vlan, mac }) =>
        client.run('fdb/del', [bridge, String(vlan), mac]),
      );
      await Promise.allSettled(removals);
    }
    // Only a static entry can be removed alone: so it becomes one first, behind the bridge's own port.
    for (const { vlan, mac } of surplus) {
      await command('add', bridge, vlan, mac);
      await command('del', vlan, mac);
    }
    for (const { interface: place, vlan, mac, ageS } of missing)
      if (ageS === null) await command('add', place, vlan, mac);
    return notTaken(bridge, lessons, parseMacTable(await command('show')));
  } finally {
    await client.close();
  }
}

/** What a table lacks, and what was learnt that it should not know. */
export function compareMacTable(
  lessons: readonly MacLesson[],
  table: readonly MacEntry[],
): { missing: MacLesson[]; surplus: MacEntry[] } {
  const present = new Set(table.map(entryKey));
  const wanted = new Set(lessons.map(({ vlan, mac }) => `${vlan}/${mac}`));
  return {
    missing: lessons.filter((lesson) => !present.has(entryKey(lesson))),
    surplus: table.filter(({ vlan, mac, ageS }) => ageS !== null && !wanted.has(`${vlan}/${mac}`)),
  };
}

const entryKey = ({ port, vlan, mac }: Pick<MacEntry, 'port' | 'vlan' | 'mac'>) => `${port}/${vlan}/${mac}`;

/** A table that is full forgets what was used least recently: so the order of age comes back too. */
const oldestFirst = (lessons: readonly MacLesson[]) =>
  [...lessons].sort((left, right) => (right.ageS ?? 0) - (left.ageS ?? 0));

interface Anchor {
  readonly place: string;
  readonly vlan: number;
  readonly mac: string;
}

const anchorKey = ({ interface: place, vlan }: MacLesson) => `${place}/${vlan}`;

/** One for each port and VLAN, at locally administered addresses. */
function anchorsOf(lessons: readonly MacLesson[]): Map<string, Anchor> {
  const anchors = new Map<string, Anchor>();
  for (const lesson of lessons) {
    if (anchors.has(anchorKey(lesson))) continue;
    const number = anchors.size.toString(16).padStart(4, '0');
    const mac = `02:57:a6:00:${number.slice(0, 2)}:${number.slice(2)}`;
    anchors.set(anchorKey(lesson), { place: lesson.interface, vlan: lesson.vlan, mac });
  }
  return anchors;
}

async function sendLessons(
  bridge: string,
  lessons: readonly MacLesson[],
  anchors: ReadonlyMap<string, Anchor>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const frames = lessons.map((lesson) => ({
    port: String(lesson.port),
    hex: lessonFrame(lesson, anchors.get(anchorKey(lesson))!.mac),
  }));
  const input = frames.map(({ port, hex }) => `packet-out in_port=${port} packet=${hex} actions=NORMAL\n`);
  try {
    await ofctl({ args: ['bundle', bridge, '-'], input: input.join(''), signal });
  } catch {
    signal?.throwIfAborted();
    // A bridge that is held to OpenFlow 1.3 or older has no bundles: one call a port.
    for (const port of new Set(frames.map((frame) => frame.port))) {
      const own = frames.filter((frame) => frame.port === port).map(({ hex }) => hex);
      await ofctl({ args: ['packet-out', bridge, port, 'NORMAL', ...own], signal });
    }
  }
}

/** A frame from the address that is to be learnt, as the port must get it so that it falls into the VLAN. */
export function lessonFrame(
  { mac, vlan, untaggedVlan }: Pick<MacLesson, 'mac' | 'vlan' | 'untaggedVlan'>,
  destination: string,
): string {
  const bytes = (address: string) => address.replaceAll(':', '');
  const tag = vlan === untaggedVlan ? '' : `${VLAN_ETHER_TYPE}${vlan.toString(16).padStart(4, '0')}`;
  const head = `${bytes(destination)}${bytes(mac)}${tag}${LESSON_ETHER_TYPE}`;
  return head.padEnd(2 * SHORTEST_FRAME_BYTES, '0');
}

function notTaken(bridge: string, lessons: readonly MacLesson[], table: readonly MacEntry[]): string[] {
  return compareMacTable(lessons, table).missing.map(
    ({ interface: place, vlan, mac }) =>
      `bridge ${bridge} does not learn again that ${mac} (VLAN ${vlan}) is behind ${place}`,
  );
}
