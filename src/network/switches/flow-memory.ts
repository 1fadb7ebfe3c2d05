import { UnixctlClient } from '../../unixctl/index.ts';

/**
 * Which flows of a bridge were found to be those of a snapshot. To compare them takes three runs of ovs-ofctl, which is
 * longer than a VM takes to be reset; to see that they are still the same takes one question. Groups and meters, which
 * that question leaves out, are compared when flows have changed.
 */
export class FlowMemory {
  readonly #found = new Map<string, { readonly snapshot: string; readonly flows: string }>();

  /**
   * Whether a bridge has the flows that it had when `remember` was called for the same snapshot, and whether it has
   * the one flow alone that Open vSwitch gives to a new bridge.
   */
  async look(
    snapshot: string,
    bridge: string,
    signal?: AbortSignal,
  ): Promise<{ readonly same: boolean; readonly asNew: boolean; readonly remember: () => void }> {
    const flows = await flowsOf(bridge, signal);
    const known = this.#found.get(bridge);
    return {
      same: flows !== null && known?.snapshot === snapshot && known.flows === flows,
      asNew: flows !== null && isOfNewBridge(flows),
      // What was there before the comparison: what changes during it is compared again.
      remember: () => {
        if (flows !== null) this.#found.set(bridge, { snapshot, flows });
      },
    };
  }
}

/** Null if the switch does not tell. */
async function flowsOf(bridge: string, signal?: AbortSignal): Promise<string | null> {
  let client: UnixctlClient | undefined;
  try {
    client = await UnixctlClient.connect({ signal });
    return withoutCounters(await client.run('bridge/dump-flows', [bridge], { signal }));
  } catch {
    signal?.throwIfAborted();
    return null;
  } finally {
    await client?.close();
  }
}

/** Beside it there are flows of the switch's own, in a table that no OpenFlow reaches (TBL_INTERNAL of its ofproto-provider.h). */
export function isOfNewBridge(flows: string): boolean {
  const visible = flows.split('\n').filter((line) => line !== '' && !line.startsWith('table_id=254,'));
  return visible.length === 1 && visible[0] === 'priority=0,actions=NORMAL';
}

/** As flow_stats_ds of Open vSwitch's ofproto/ofproto.c prints them. */
export const withoutCounters = (flows: string): string =>
  flows.replaceAll(/^(.*?)duration=[\d.]+s, n_packets=\d+, n_bytes=\d+, /gm, '$1');
