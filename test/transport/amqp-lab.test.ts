import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { OwnBroker } from '../../src/bench/bus/broker.ts';
import type { LogOffsets } from '../../src/demo/guests.ts';
import type { Lab } from '../../src/lab/index.ts';
import { experiment, snapshot as snapshotSchema } from '../../src/protocol/resources.ts';
import { intents, partialSnapshots, pidsOf, untilCount, untilSettled } from '../e2e/host-view.ts';
import { Bench, destroyVms, hostPath, runStates, startLab, takeDown } from '../e2e/harness.ts';

const cli = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
/** The default lease, and what a busy machine may add to it. */
const boundMs = 30_000;

describe('an experiment whose agents are at a message broker', { timeout: 180_000 }, () => {
  let lab: Lab;
  let broker: OwnBroker;
  let bench: Bench;
  let before: LogOffsets;
  const agents: ChildProcess[] = [];

  beforeAll(async () => {
    lab = await startLab('amqp');
    // On the network by which the hosts are reached.
    const subnet = lab.hosts[0]!.address.replace(/\.\d+$/, '');
    broker = await OwnBroker.start({
      address: `${subnet}.250/24`,
      near: { bridge: bridgeAt(`${subnet}.1`) },
    });
    process.env['STAGHORN_BROKER_FILE'] = broker.fileFor('controller', { tls: true });
    await Promise.all(lab.hosts.map(({ name }) => startAgent(name)));
    const definition = JSON.parse(await readFile(lab.experimentFile, 'utf8')) as object;
    await writeFile(lab.experimentFile, JSON.stringify({ ...definition, transport: 'amqp' }));
    bench = await Bench.start(lab);
    await bench.guests.waitForReports(await bench.guests.offsets(), 3);
  }, 400_000);
  afterAll(async () => {
    delete process.env['STAGHORN_BROKER_FILE'];
    await bench?.server.stop();
    await takeDown(lab);
    for (const agent of agents) agent.kill();
    await broker?.stop();
  });

  /** As a site's own service would run it. */
  async function startAgent(host: string): Promise<void> {
    const file = hostPath(lab, host, '/run/broker.yaml');
    copyFileSync(broker.fileFor('agent', { tls: true }), file);
    copyFileSync(`${broker.directory}/ca.pem`, hostPath(lab, host, '/run/ca.pem'));
    const command = [process.execPath, cli, 'agent', '--broker', '/run/broker.yaml', '--host', host];
    const args = ['-F', lab.sshConfig, host, 'exec', ...command];
    const agent = spawn('ssh', args, { stdio: ['ignore', 'ignore', 'pipe'] });
    agents.push(agent);
    const told: string[] = [];
    for await (const line of createInterface({ input: agent.stderr })) {
      if (line.startsWith('connected to the broker')) return;
      told.push(line);
    }
    throw new Error(`the agent of ${host} ended: ${told.join('; ')}`);
  }

  async function stopTime(): Promise<void> {
    expect(await bench.operate('POST', `${bench.path}/pause`)).toMatchObject({ state: 'succeeded' });
    const held = await bench.server.client.json('GET', bench.path, experiment);
    expect(held.state).toBe('paused');
    expect(await intents(lab)).not.toEqual([]);
  }

  async function expectAllWell(): Promise<void> {
    expect(await untilSettled(lab, boundMs)).toBeLessThan(boundMs);
    expect(await runStates(lab)).toEqual(['running', 'running']);
    expect(await partialSnapshots(lab)).toEqual([]);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    const judgement = await bench.guests.judge([{}], before);
    expect(await bench.datagramFlaws(judgement)).toEqual([]);
  }

  it('is snapshotted without its guests noticing, and by no other agents than those', async () => {
    before = await bench.moment();
    const id = await bench.snapshot();
    const taken = await bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshotSchema);
    expect(taken).toMatchObject({ state: 'sealed', methods: ['fork'], provenPaths: 2, warnings: [] });
    await expectAllWell();
    for (const { name } of lab.hosts) expect(await pidsOf(lab, name, 'agent')).toHaveLength(1);
  });

  it('goes on within the lease when the broker is killed while time stands still', async () => {
    before = await bench.moment();
    await stopTime();
    await broker.kill();
    await expectAllWell();
    await broker.run();
    before = await bench.moment();
    await bench.snapshot();
    await expectAllWell();
  });

  it('goes on within the lease when the wire to the broker is cut while time stands still', async () => {
    before = await bench.moment();
    await stopTime();
    broker.setReachable(false);
    try {
      await expectAllWell();
    } finally {
      broker.setReachable(true);
    }
    before = await bench.moment();
    await bench.snapshot();
    await expectAllWell();
  });

  it('fails a snapshot during which the broker is killed, and says why', async () => {
    before = await bench.moment();
    let killed: Promise<void> | undefined;
    const failed = await bench.operate('POST', `${bench.path}/snapshots`, {}, (step) => {
      if (step === 'store') killed ??= broker.kill();
    });
    await killed;
    expect(failed).toMatchObject({ state: 'failed', error: { code: 'agent-lost' } });
    expect(failed.error?.detail).toContain('the connection to the broker');
    await broker.run();
    await expectAllWell();
  });

  it('is put right by the guardian when an agent is killed, and goes on with the next', async () => {
    before = await bench.moment();
    await stopTime();
    for (const pid of await pidsOf(lab, 'h1', 'agent')) process.kill(pid, 'SIGKILL');
    await expectAllWell();
    await untilCount(lab, 'h1', 'agent', 0);
    await startAgent('h1');
    before = await bench.moment();
    await bench.snapshot();
    await expectAllWell();
  });

  it('comes back from a snapshot after its VMs were destroyed', async () => {
    const id = await bench.snapshot();
    await destroyVms(lab);
    expect(await bench.operate('POST', `/v1/snapshots/${id}/restore`)).toMatchObject({ state: 'succeeded' });
    expect(await runStates(lab)).toEqual(['running', 'running']);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
  });
});

function bridgeAt(address: string): string {
  const links = JSON.parse(execFileSync('ip', ['-j', '-4', 'address'], { encoding: 'utf8' })) as {
    ifname: string;
    addr_info: { local: string }[];
  }[];
  const found = links.find(({ addr_info: addresses }) => addresses.some(({ local }) => local === address));
  if (found === undefined) throw new Error(`no interface has ${address}`);
  return found.ifname;
}
