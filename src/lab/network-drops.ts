import { readFile } from 'node:fs/promises';

import { run } from './command.ts';

/** Frames that a network has dropped by itself, by what counted them. Counters live as long as what they count for. */
export type NetworkDrops = ReadonlyMap<string, number>;

/** What frames may be lost in: a network namespace, and the log of the switch in it. */
export interface DroppingNetwork {
  readonly namespace: string;
  readonly switchLog: string | undefined;
}

/** Whose packet sockets are the network's. Those of others on a host, Staghorn's among them, excuse nothing. */
const switchProcess = 'ovs-vswitchd';
/**
 * All ports share one packet socket: once what waits in the queues of the taps fills its buffer, a frame for any of
 * them is dropped (netdev_linux_sock_batch_send in lib/netdev-linux.c).
 */
const sendError = 'error sending Ethernet packet';

/** Where filters sit, Staghorn's gate among them: no frame waits there, and what they drop is their business. */
const holdsNoFrames: readonly string[] = ['clsact', 'ingress'];

/** A packet socket of the switch. */
interface SwitchSocket {
  /** A name; `*`: of none. */
  readonly device: string;
  readonly fd: string;
  readonly bufferBytes: number;
  /** Frames that it had no room for. */
  readonly dropped: number;
}

/** Out of what `ss -0 -n -a -m -p` prints. */
export function parseSwitchSockets(text: string): SwitchSocket[] {
  // While a barrier is under way an agent has a duplicate of the switch's descriptor.
  const owner = `\\("${switchProcess}",pid=\\d+,fd=(\\d+)\\)`;
  const line = new RegExp(
    `^p_\\S+\\s+\\S+\\s+\\S+\\s+\\S+\\s+\\S*:(\\S+)\\s.*${owner}.*,rb(\\d+),.*,d(\\d+)\\)`,
    'gm',
  );
  return [...text.matchAll(line)].map(([, device, fd, bytes, count]) => {
    return { device: device!, fd: fd!, bufferBytes: Number(bytes), dropped: Number(count) };
  });
}

export async function readSwitchSockets(namespace: string): Promise<SwitchSocket[]> {
  const inside = ['nsenter', `--net=/run/netns/${namespace}`];
  return parseSwitchSockets(await run([...inside, 'ss', '-0', '-n', '-a', '-m', '-p']));
}

const socketDrops = (sockets: readonly SwitchSocket[]): NetworkDrops =>
  new Map(sockets.map(({ device, fd, dropped }) => [`the switch's socket ${fd} of ${device}`, dropped]));

/** Out of what `tc -s qdisc show` prints: frames that queueing disciplines dropped. */
export function queueDrops(text: string): NetworkDrops {
  const found = text.matchAll(/^qdisc (\S+) (\S+) dev (\S+) .*\n.*\(dropped (\d+)/gm);
  const queues = [...found].filter(([, kind]) => !holdsNoFrames.includes(kind!));
  return new Map(
    queues.map(([, kind, handle, device, count]) => [`${kind} ${handle} of ${device}`, Number(count)]),
  );
}

async function sendErrors(log: string): Promise<NetworkDrops> {
  const count = (await readFile(log, 'utf8')).split(sendError).length - 1;
  return new Map([["the switch's socket for sending", count]]);
}

/** All that a network says it has dropped so far. */
export async function readNetworkDrops({ namespace, switchLog }: DroppingNetwork): Promise<NetworkDrops> {
  const inside = ['nsenter', `--net=/run/netns/${namespace}`];
  const [sockets, queues, sending] = await Promise.all([
    readSwitchSockets(namespace).then(socketDrops),
    run([...inside, 'tc', '-s', 'qdisc', 'show']).then(queueDrops),
    switchLog === undefined ? new Map<string, number>() : sendErrors(switchLog),
  ]);
  return new Map([...sockets, ...queues, ...sending]);
}

/** What has been dropped between two readings; a counter that went with its device says nothing. */
export function dropsBetween(before: NetworkDrops, after: NetworkDrops): NetworkDrops {
  const grown = [...after].map(([name, count]) => [name, count - (before.get(name) ?? 0)] as const);
  return new Map(grown.filter(([, count]) => count > 0));
}

export function sumOfDrops(drops: NetworkDrops): number {
  return [...drops.values()].reduce((sum, count) => sum + count, 0);
}
