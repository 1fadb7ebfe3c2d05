import { BrokerAgents, type RpcClient } from '../../transport/index.ts';
import { readBrokerFile } from '../../transport/rpc.ts';
import { quantile, type Bench, type BenchOptions, type BenchResult } from '../bench.ts';
import { OwnBroker } from './broker.ts';
import { busContract } from './contract.ts';
import { PeerProcess } from './peer-process.ts';
import { SshPeers } from './ssh-peers.ts';

type Peer = RpcClient<typeof busContract>;

const peerCounts = [1, 10, 100];
const callTimeoutMs = 30_000;
const microseconds = (ns: bigint) => Number(ns) / 1000;

/**
 * From a call at the controller to its handler at the agents (one way; both read CLOCK_MONOTONIC of the same
 * machine), and from the first to the last agent that a step for all of them reaches.
 */
export const busBench: Bench = async (options) => {
  const results: BenchResult[] = [];
  for (const count of peerCounts) {
    results.push(...(await overSsh(count, options)), ...(await overBroker(count, options)));
  }
  return results;
};

async function overSsh(count: number, options: BenchOptions): Promise<BenchResult[]> {
  options.onStep(`${count} over SSH`);
  const ssh = await SshPeers.start();
  try {
    const peers: Peer[] = [];
    for (let i = 0; i < count; i++) peers.push(await ssh.connect());
    return await measure('SSH', peers, options);
  } finally {
    await ssh.stop();
  }
}

async function overBroker(count: number, options: BenchOptions): Promise<BenchResult[]> {
  options.onStep(`${count} over RabbitMQ`);
  const broker = await OwnBroker.start();
  const agents = new BrokerAgents(await readBrokerFile(broker.fileFor('controller')));
  let process: PeerProcess | undefined;
  try {
    process = await PeerProcess.start('amqp', broker.fileFor('agent'), '0', String(count));
    const names = Array.from({ length: count }, (_, i) => `peer-${i}`);
    const connected = await Promise.all(names.map((name) => agents.connect(busContract, name)));
    return await measure(
      'RabbitMQ',
      connected.map(({ client }) => client),
      options,
    );
  } finally {
    await agents.close();
    await process?.stop();
    await broker.stop();
  }
}

async function measure(
  transport: string,
  peers: readonly Peer[],
  { quick, signal }: BenchOptions,
): Promise<BenchResult[]> {
  const rounds = quick ? 30 : 300;
  const delaysUs: number[] = [];
  const spreadsUs: number[] = [];
  // The first rounds are compiled and not counted.
  for (let round = -5; round < rounds; round++) {
    signal.throwIfAborted();
    const sentAtNs = process.hrtime.bigint();
    const answers = await Promise.all(
      peers.map((peer) => peer.call('stamp', {}, { timeoutMs: callTimeoutMs })),
    );
    if (round < 0) continue;
    const arrivals = answers.map(({ arrivedAtNs }) => microseconds(arrivedAtNs - sentAtNs));
    delaysUs.push(...arrivals);
    spreadsUs.push(Math.max(...arrivals) - Math.min(...arrivals));
  }
  const name = `${peers.length} over ${transport}`;
  const delay = summary(`one-way delay, ${name}`, delaysUs);
  return peers.length === 1 ? [delay] : [delay, summary(`fan-out spread, ${name}`, spreadsUs)];
}

function summary(metric: string, valuesUs: readonly number[]): BenchResult {
  const round = (value: number) => Number(value.toPrecision(4));
  return {
    metric,
    value: round(quantile(valuesUs, 0.5)),
    unit: 'µs',
    goal: null,
    met: null,
    reference: `${valuesUs.length} values; p95 ${round(quantile(valuesUs, 0.95))}, max ${round(Math.max(...valuesUs))}`,
  };
}
