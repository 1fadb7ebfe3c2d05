import { isDeepStrictEqual } from 'node:util';

import { ofctl } from './ovs-ofctl.ts';

/** What a bridge does with frames, as text: one flow, group or meter a line, in the notation of ovs-ofctl(8). */
export interface OpenFlowTables {
  readonly flows: string;
  readonly groups: string;
  readonly meters: string;
}

/** @throws StaghornError 'network-unfit' if the bridge does not answer */
export async function readOpenFlow(bridge: string, signal?: AbortSignal): Promise<OpenFlowTables> {
  const dump = (what: string, ...options: string[]) =>
    ofctl({ args: [...options, `dump-${what}`, bridge], signal });
  // OpenFlow 1.0 has no groups, and before 1.3 there are no meters: then there are none.
  const orNone = (text: Promise<string>) =>
    text.catch((error: unknown) => {
      if (/not supported|does not support|requires OpenFlow|Unsupported/i.test(String(error))) return '';
      throw error;
    });
  const [flows, groups, meters] = await Promise.all([
    dump('flows', '--no-stats', '--no-names'),
    orNone(dump('groups', '--no-names')),
    orNone(dump('meters')),
  ]);
  return { flows: entriesOf(flows), groups: inOrder(entriesOf(groups)), meters: metersOf(meters) };
}

/**
 * Gives a bridge that was made again what it had. Meters first, groups next: flows refer to both.
 * @throws StaghornError 'network-unfit'
 */
export async function writeOpenFlow(
  bridge: string,
  { flows, groups, meters }: OpenFlowTables,
  signal?: AbortSignal,
): Promise<void> {
  for (const meter of linesOf(meters)) await ofctl({ args: ['add-meter', bridge, meter], signal });
  if (groups !== '') await ofctl({ args: ['add-groups', bridge, '-'], input: groups, signal });
  await ofctl({ args: ['replace-flows', bridge, '-'], input: flows, signal });
}

/** Whether two dumps say the same: their order means nothing. */
export function sameOpenFlow(left: OpenFlowTables, right: OpenFlowTables): boolean {
  return (['flows', 'groups', 'meters'] as const).every((what) =>
    isDeepStrictEqual(linesOf(left[what]).sort(), linesOf(right[what]).sort()),
  );
}

/** Whether a bridge has nothing but the one flow that Open vSwitch gives to a new one, or not even that. */
export function isAsNew({ flows, groups, meters }: OpenFlowTables): boolean {
  return groups === '' && meters === '' && ['', 'priority=0 actions=NORMAL\n'].includes(flows);
}

export const linesOf = (text: string): string[] => text.split('\n').filter((line) => line.trim() !== '');

/** A dump without the heading of each reply, which is not indented. */
function entriesOf(dump: string): string {
  return joined(
    linesOf(dump)
      .filter((line) => line.startsWith(' '))
      .map((line) => line.trim()),
  );
}

/** A dumped meter has a line for itself and one for each of its bands; `add-meter` wants one. */
function metersOf(dump: string): string {
  const meters: string[] = [];
  for (const line of linesOf(dump).map((text) => text.trim())) {
    if (line.startsWith('meter=')) meters.push(line);
    else if (line.startsWith('type=')) meters.push(`${meters.pop() ?? ''}${line} `);
  }
  return joined(meters.map((meter) => meter.trim()));
}

/** Open vSwitch gives groups in the order of a hash table, which is another one after each restore. */
const inOrder = (lines: string) => joined(linesOf(lines).sort());

const joined = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join('');
