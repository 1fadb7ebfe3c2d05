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

/** Where struct ofp_flow_stats has the time that a flow is there, its packets and its bytes (OpenFlow 1.3.5, 7.3.5.2). */
const counterPlaces = [
  { from: 4, to: 12 },
  { from: 32, to: 48 },
] as const;
const flowBytesMin = 56;

/** Flows begin with their length, and have at least an empty match behind their counters. */
export function zeroCounters({ flows }: Pick<DumpedTables, 'flows'>): void {
  for (let at = 0; at + flowBytesMin <= flows.length;) {
    const length = flows.readUInt16BE(at);
    for (const { from, to } of counterPlaces) flows.fill(0, at + from, at + to);
    at += Math.max(length, flowBytesMin);
  }
}
