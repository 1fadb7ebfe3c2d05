import { createHash } from 'node:crypto';
import { join } from 'node:path';

import { readTables, type DumpedTables } from '../../openflow/index.ts';
import { runDirectory } from '../../unixctl/index.ts';
import { readOpenFlow, type OpenFlowTables } from './openflow.ts';

/**
 * What the bridges of this host were found to do with frames, as text. To have ovs-ofctl write it takes three processes
 * a bridge, which is longer than all else that a barrier makes ready; to see that it is still the same takes a message.
 * Invariant: a text is remembered only if the bridge had the same flows, groups and meters before and after it was read.
 */
export class OpenFlowMemory {
  readonly #known = new Map<string, { readonly digest: string; readonly tables: OpenFlowTables }>();

  /** As readOpenFlow. @throws StaghornError 'network-unfit' */
  async read(bridge: string, signal?: AbortSignal): Promise<OpenFlowTables> {
    const digest = await digestOf(bridge, signal);
    const known = this.#known.get(bridge);
    if (digest !== null && known?.digest === digest) return known.tables;
    const tables = await readOpenFlow(bridge, signal);
    if (digest !== null && (await digestOf(bridge, signal)) === digest)
      this.#known.set(bridge, { digest, tables });
    else this.#known.delete(bridge);
    return tables;
  }
}

/** Null if the bridge does not tell: it may speak older versions of OpenFlow only. */
async function digestOf(bridge: string, signal?: AbortSignal): Promise<string | null> {
  try {
    const tables = await readTables(join(runDirectory(), `${bridge}.mgmt`), { signal });
    zeroCounters(tables);
    return createHash('sha256')
      .update(`${tables.version} ${tables.flows.length} ${tables.groups.length} `)
      .update(tables.flows)
      .update(tables.groups)
      .update(tables.meters)
      .digest('base64');
  } catch {
    signal?.throwIfAborted();
    return null;
  }
}

/** Sets to zero for how long each flow is there, and its packets and bytes. */
export function zeroCounters({ version, flows }: Pick<DumpedTables, 'version' | 'flows'>): void {
  const places = version < openFlow15 ? statsPlaces : descriptionPlaces;
  for (let at = 0; at + leastFlowBytes <= flows.length;) {
    const flow = flows.subarray(at, at + Math.max(flows.readUInt16BE(at), leastFlowBytes));
    for (const [from, to] of places(flow)) flow.fill(0, from, to);
    at += flow.length;
  }
}

const openFlow15 = 6;
/** The shortest form: that of 1.5, with an empty match and no statistics. */
const leastFlowBytes = 40;

/** struct ofp_flow_stats (OpenFlow 1.3.5, section 7.3.5.2). */
const statsPlaces = () => [
  [4, 12],
  [32, 48],
];

/** struct ofp_flow_desc (OpenFlow 1.5.1, section 7.3.5.2): statistics stand behind the match, with their own length. */
function descriptionPlaces(flow: Buffer): number[][] {
  const statsAt = 24 + Math.ceil(flow.readUInt16BE(26) / 8) * 8;
  if (statsAt + 4 > flow.length) return [];
  return [[statsAt + 4, Math.min(statsAt + flow.readUInt16BE(statsAt + 2), flow.length)]];
}
