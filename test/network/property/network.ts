import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { DelayLine } from './delay-line.ts';
import type { DrawnFlow } from './flows.ts';
import { Switch } from './switch.ts';
import type { Station, Topology } from './topology.ts';

const run = promisify(execFile);
const underlayMtu = 9050;
const bitsAByte = 8;
/** Far more than ever waits: a shaped tap delays frames, and drops none. */
const shapeQueueBytes = 8_000_000;

let made = 0;

const addressOf = (host: number) => `198.18.72.${host + 1}`;
const macOf = (host: number) => `02:5b:00:00:00:0${host}`;
export const bridgeOf = (network: number) => `br${network}`;

function tunnelCommands({ hosts, networks, tunnel }: Topology, host: number): string[][] {
  const peers = Array.from({ length: hosts }, (_, peer) => peer).filter((peer) => peer !== host);
  return Array.from({ length: networks }, (_, network) => network).flatMap((network) =>
    peers.flatMap((peer) => {
      const name = `to${peer}-${network}`;
      const options = [`options:remote_ip=${addressOf(peer)}`, `options:key=${network + 1}`];
      return [
        ['add-port', bridgeOf(network), name],
        ['set', 'interface', name, `type=${tunnel}`, ...options],
        // In a full mesh no tunnel forwards to another one, or frames would go round for ever.
        ['set', 'port', name, 'protected=true'],
      ];
    }),
  );
}

/** Open vSwitch removes a qdisc that it finds, unless the port's QoS is "linux-noop" (ovs-vswitchd.conf.db(5)). */
function stationCommands({ device, network, plug, shape }: Station): string[][] {
  const tag = plug === 'trunk' ? [] : [`tag=${plug.access}`];
  const add = ['add-port', bridgeOf(network), device, ...tag];
  if (shape === null) return [add];
  const id = `@${device}`;
  return [add, ['set', 'port', device, `qos=${id}`], [`--id=${id}`, 'create', 'qos', 'type=linux-noop']];
}

/** The hosts of a case: namespaces with an Open vSwitch each, joined by tunnels over a wire in one more namespace. */
export class CaseNetwork {
  readonly namespaces: readonly string[];
  readonly #topology: Topology;
  readonly #wire: string;
  readonly #switches = new Map<number, Switch>();
  #delayLine: DelayLine | undefined;

  /** Nothing is made yet. */
  constructor(topology: Topology) {
    const name = `sg-property-${process.pid}-${made++}`;
    this.#topology = topology;
    this.#wire = `${name}-wire`;
    this.namespaces = Array.from({ length: topology.hosts }, (_, host) => `${name}-h${host}`);
  }

  /** @param loads what is sent to each station, in bits a second */
  async build(loads: ReadonlyMap<string, number>, directory: string): Promise<void> {
    await this.#wireHosts(directory);
    await Promise.all(this.namespaces.map((_, host) => this.#buildHost(host, loads, directory)));
  }

  namespaceOf(station: Station): string {
    return this.namespaces[station.host]!;
  }

  switchDirectoryOf(host: number): string {
    return this.#switches.get(host)!.directory;
  }

  /** Until a tap's reader is there and the kernel has said so, its queueing discipline drops what is sent. */
  async tapsAreUp(): Promise<void> {
    for (const { device, host } of this.#topology.stations) {
      while (!(await this.#ip(host, `link show ${device}`)).includes('state UP')) await sleep(5);
    }
  }

  /** Frames that the network has dropped so far: on their way into its switches and out of them, and in queues. */
  async drops(): Promise<number> {
    const counts = [this.#wire, ...this.namespaces].map(async (namespace) => {
      const sockets = await this.#inside(namespace, ['ss', '-0', '-n', '-m']);
      const queues = await this.#inside(namespace, ['tc', '-s', 'qdisc', 'show']);
      const found = [...sockets.matchAll(/,d(\d+)\)/g), ...queues.matchAll(/\(dropped (\d+)/g)];
      return found.reduce((sum, [, count]) => sum + Number(count), 0);
    });
    const unsent = [...this.#switches.values()].map((each) => each.sendErrors());
    return (await Promise.all([...counts, ...unsent])).reduce((sum, count) => sum + count, 0);
  }

  async destroy(): Promise<void> {
    for (const made of this.#switches.values()) await made.stop();
    await this.#delayLine?.stop();
    const existing = (await run('ip', ['netns', 'list'])).stdout
      .split('\n')
      .map((line) => line.split(' ')[0]);
    for (const name of [...this.namespaces, this.#wire]) {
      if (existing.includes(name)) await run('ip', ['netns', 'delete', name]);
    }
  }

  async #wireHosts(directory: string): Promise<void> {
    for (const name of [this.#wire, ...this.namespaces]) {
      await run('ip', ['netns', 'add', name]);
      // Devices must be silent by themselves: no router solicitations, no multicast reports.
      for (const key of ['all', 'default'])
        await this.#inside(name, ['sysctl', '-qw', `net.ipv6.conf.${key}.disable_ipv6=1`]);
    }
    const { delaysMs } = this.#topology;
    if (delaysMs === null)
      await this.#onTheWire(`link add wire mtu ${underlayMtu} up type bridge mcast_snooping 0`);
    for (const [host, namespace] of this.namespaces.entries()) {
      const peer = `peer name underlay mtu ${underlayMtu} netns ${namespace}`;
      await this.#onTheWire(`link add h${host} mtu ${underlayMtu} type veth ${peer}`);
      await this.#onTheWire(`link set h${host} ${delaysMs === null ? 'master wire ' : ''}up`);
      await this.#ip(host, 'link set underlay up');
    }
    if (delaysMs === null) return;
    const devices = this.namespaces.map((_, host) => `h${host}`);
    this.#delayLine = await DelayLine.start({ namespace: this.#wire, devices, delaysMs, directory });
  }

  async #onTheWire(words: string): Promise<void> {
    await run('ip', ['-n', this.#wire, ...words.split(' ')]);
  }

  async #buildHost(host: number, loads: ReadonlyMap<string, number>, directory: string): Promise<void> {
    const stations = this.#topology.stations.filter((station) => station.host === host);
    for (const { device, mtu } of stations) {
      await this.#ip(host, `tuntap add ${device} mode tap`);
      await this.#ip(host, `link set ${device} mtu ${mtu} up`);
    }
    const namespace = this.namespaces[host]!;
    const made = await Switch.start(namespace, join(directory, namespace));
    this.#switches.set(host, made);
    await made.configure(this.#switchCommands(host, stations));
    await this.#openTunnels(made, host);
    for (const station of stations) await this.#shape(station, loads.get(station.name) ?? 0);
  }

  #switchCommands(host: number, stations: readonly Station[]): string[][] {
    const bridge = (name: string) => [
      ['add-br', name],
      ['set', 'bridge', name, 'datapath_type=netdev'],
    ];
    return [
      ...bridge('br-underlay'),
      ['set', 'bridge', 'br-underlay', `other_config:hwaddr="${macOf(host)}"`],
      ['add-port', 'br-underlay', 'underlay'],
      ['set', 'interface', 'br-underlay', `mtu_request=${underlayMtu}`],
      ...Array.from({ length: this.#topology.networks }, (_, network) => bridge(bridgeOf(network))).flat(),
      ...tunnelCommands(this.#topology, host),
      ...stations.flatMap(stationCommands),
    ];
  }

  /** Neighbours are known in advance: the first frame through a tunnel would be dropped for an ARP request. */
  async #openTunnels(made: Switch, host: number): Promise<void> {
    await this.#ip(host, `address add ${addressOf(host)}/24 dev br-underlay`);
    await this.#ip(host, 'link set br-underlay up');
    await made.tell('tnl/neigh/aging', '3600');
    // The switch has taken note of the address by now: it does that after it has answered a command.
    await made.tell('ovs/route/add', `${addressOf(host)}/24`, 'br-underlay');
    for (const peer of this.namespaces.keys()) {
      if (peer !== host) await made.tell('tnl/neigh/set', 'br-underlay', addressOf(peer), macOf(peer));
    }
  }

  async #shape(station: Station, load: number): Promise<void> {
    const { shape, device, mtu } = station;
    if (shape === null) return;
    const rate = `${Math.ceil(Math.max(load * shape.headroom, 100_000))}bit`;
    const burst = String(mtu + 100);
    const tc = (words: string) => this.#inside(this.namespaceOf(station), ['tc', ...words.split(' ')]);
    if (shape.kind === 'tbf') {
      await tc(`qdisc replace dev ${device} root tbf rate ${rate} burst ${burst} limit ${shapeQueueBytes}`);
      return;
    }
    await tc(`qdisc replace dev ${device} root handle 1: htb default 10`);
    await tc(`class add dev ${device} parent 1: classid 1:10 htb rate ${rate} burst ${burst}`);
    await tc(`qdisc add dev ${device} parent 1:10 bfifo limit ${shapeQueueBytes}`);
  }

  async #ip(host: number, words: string): Promise<string> {
    return (await run('ip', ['-n', this.namespaces[host]!, ...words.split(' ')])).stdout;
  }

  async #inside(namespace: string, words: readonly string[]): Promise<string> {
    return (await run('nsenter', [`--net=/run/netns/${namespace}`, ...words])).stdout;
  }
}

/** What may come to each station on average, in bits a second. */
export function loadsOf(flows: ReadonlyMap<string, readonly DrawnFlow[]>): Map<string, number> {
  const loads = new Map<string, number>();
  for (const { reaches, ratePerSecond, minBytes, maxBytes } of [...flows.values()].flat()) {
    const bits = (ratePerSecond * (minBytes + maxBytes) * bitsAByte) / 2;
    for (const name of reaches) loads.set(name, (loads.get(name) ?? 0) + bits);
  }
  return loads;
}
