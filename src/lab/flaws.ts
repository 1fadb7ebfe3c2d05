import { runInHost } from './host.ts';
import type { Judgement } from './judge.ts';
import { dropsBetween, readNetworkDrops, sumOfDrops, type NetworkDrops } from './network-drops.ts';
import { outside } from './paths.ts';
import type { Lab } from './up.ts';

const switchLog = '/var/log/openvswitch/ovs-vswitchd.log';

/** What no network does to frames of its own accord. */
const neverExcused = ['duplicated', 'reordered', 'corrupted', 'tcpMismatches'] as const;

/**
 * What is wrong with datagrams, and with the contents of streams, and is not explained by what the network dropped;
 * empty if nothing is. As many datagrams may be missing as were dropped, so none where nothing was.
 */
export function datagramFlaws(judgement: Judgement, drops: NetworkDrops): string[] {
  const own = [...drops].map(([name, count]) => `${name} ${count}`).join(', ');
  const flaws = neverExcused.filter((key) => judgement[key] > 0).map((key) => `${key}: ${judgement[key]}`);
  if (judgement.received === 0) flaws.push('nothing was received');
  if (judgement.lost > sumOfDrops(drops))
    flaws.push(`lost: ${judgement.lost}; the network itself dropped ${own || 'nothing'}`);
  return flaws;
}

/** The same, and what is wrong with streams: a segment sent again is a flaw unless the network dropped something. */
export function flawsOf(judgement: Judgement, drops: NetworkDrops): string[] {
  const { tcpFailures, tcpRetransmissions, tcpTimeouts, disturbedStreams } = judgement;
  const flaws = datagramFlaws(judgement, drops);
  if (tcpFailures > 0) flaws.push(`tcpFailures: ${tcpFailures}`);
  if (sumOfDrops(drops) === 0 && tcpRetransmissions + tcpTimeouts + disturbedStreams.length > 0)
    flaws.push(`segments sent again: ${tcpRetransmissions}; ${JSON.stringify(disturbedStreams)}`);
  return flaws;
}

/** Counts what a lab's network drops by itself from one moment on. */
export class DropWatch {
  readonly #lab: Lab;
  readonly #before: NetworkDrops;

  private constructor(lab: Lab, before: NetworkDrops) {
    this.#lab = lab;
    this.#before = before;
  }

  static async begin(lab: Lab): Promise<DropWatch> {
    // Each error of sending counts: without this the switch notes a few a minute.
    const command = ['ovs-appctl', 'vlog/disable-rate-limit', 'netdev_linux'];
    await Promise.all(lab.hosts.map(({ name }) => runInHost({ lab: lab.name, host: name }, command)));
    return new DropWatch(lab, await readLab(lab));
  }

  async drops(): Promise<NetworkDrops> {
    return dropsBetween(this.#before, await readLab(this.#lab));
  }
}

async function readLab(lab: Lab): Promise<NetworkDrops> {
  const perHost = await Promise.all(
    lab.hosts.map(async ({ name, namespace }) => {
      const drops = await readNetworkDrops({ namespace, switchLog: outside(lab.name, name, switchLog) });
      return [...drops].map(([what, count]) => [`${name}: ${what}`, count] as const);
    }),
  );
  return new Map(perHost.flat());
}
