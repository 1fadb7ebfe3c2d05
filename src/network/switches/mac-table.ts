import { messageOf, StaghornError } from '../../errors/index.ts';
import { UnixctlClient } from '../../unixctl/index.ts';

/** What a switch has learnt: behind which port, in which VLAN, a MAC address is. */
export interface MacEntry {
  /** The OpenFlow port. */
  readonly port: number | 'LOCAL';
  readonly vlan: number;
  readonly mac: string;
  /** Seconds since it was last seen; null for a static entry, which never ages. */
  readonly ageS: number | null;
}

/** A row of `fdb/show` (ofproto_unixctl_fdb_show in ofproto/ofproto-dpif.c of Open vSwitch). */
const row = /^ *(\d+|LOCAL) +(\d+) +((?:[0-9a-f]{2}:){5}[0-9a-f]{2}) +(\d+|static)$/;

/** @throws StaghornError 'host-unfit' if a line is no row of a MAC table */
export function parseMacTable(text: string): MacEntry[] {
  const [, ...lines] = text.trimEnd().split('\n');
  return lines.map((line) => {
    const [, port, vlan, mac, age] = row.exec(line) ?? [];
    if (port === undefined || mac === undefined)
      throw new StaghornError('host-unfit', `Open vSwitch's fdb/show has a line of another form: "${line}"`);
    return {
      port: port === 'LOCAL' ? port : Number(port),
      vlan: Number(vlan),
      mac,
      ageS: age === 'static' ? null : Number(age),
    };
  });
}

/** The MAC learning tables of several bridges, over one connection. @throws StaghornError 'host-unfit' */
export async function readMacTables(
  bridges: readonly string[],
  signal?: AbortSignal,
): Promise<Map<string, MacEntry[]>> {
  try {
    const client = await UnixctlClient.connect({ signal });
    try {
      const texts = await Promise.all(bridges.map((bridge) => client.run('fdb/show', [bridge], { signal })));
      return new Map(bridges.map((bridge, place) => [bridge, parseMacTable(texts[place]!)]));
    } finally {
      await client.close();
    }
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof StaghornError) throw error;
    throw new StaghornError('host-unfit', `Open vSwitch does not tell its MAC tables: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** The MAC learning table of a bridge. @throws StaghornError 'host-unfit' */
export async function readMacTable(bridge: string, signal?: AbortSignal): Promise<MacEntry[]> {
  return (await readMacTables([bridge], signal)).get(bridge)!;
}
