import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { labUp, parseLabFile, runInHost, type Lab } from '../../src/lab/index.ts';
import { captureFile } from '../../src/lab/paths.ts';
import { planLab } from '../../src/lab/plan.ts';
import { Capture, readPcap, type SeenFrame } from './capture.ts';
import { Bench, destroyVms, hostPath, takeDown } from './harness.ts';

const markerEtherType = 0x88b5;
const ipv4EtherType = 0x0800;

const file = parseLabFile(`name: sniffed-${process.pid}
management: 198.18.${72 + (process.pid % 8)}.0/24
hosts: [{ name: h1 }, { name: h2 }]
vms:
  - { name: a, host: h1, memoryMiB: 96, nics: [{ capture: true }] }
  - { name: b, host: h1, memoryMiB: 96, nics: [{ model: e1000, capture: true }] }
  - { name: c, host: h2, memoryMiB: 96, nics: [{ capture: true }] }
`);
const plan = planLab(file);
const guests = plan.vms.flatMap(({ nics }) => nics.map(({ mac }) => mac));
const onFirstHost = plan.vms.filter(({ host }) => host === 'h1');
const taps = onFirstHost.flatMap(({ nics }) => nics.map(({ tap }) => tap));
const sniffer = 'sniffer';

/** A port that gets a copy of whatever the bridge forwards (ovs-vswitchd.conf.db(5), Mirror). */
const mirrorCommands = [
  [
    ...['ovs-vsctl', 'add-port', 'br-int', sniffer, '--', 'set', 'interface', sniffer, 'type=internal'],
    ...['--', '--id=@port', 'get', 'port', sniffer, '--', '--id=@mirror', 'create', 'mirror', 'name=all'],
    ...['select-all=true', 'output-port=@port', '--', 'set', 'bridge', 'br-int', 'mirrors=@mirror'],
  ],
  ['ip', 'link', 'set', sniffer, 'up'],
];

/** ARP, RARP and IPv6 show up here: the guests have static neighbours and no IPv6, and never send any. */
const isForeign = ({ sourceMac, etherType }: SeenFrame) =>
  !guests.includes(sourceMac) || etherType !== ipv4EtherType;

const describeFrame = (frame: SeenFrame) =>
  `${frame.interface} ${frame.sourceMac} 0x${frame.etherType.toString(16)} ${Buffer.from(frame.bytes).toString('hex', 0, 64)}`;

describe('the bridge of a restored experiment', { timeout: 180_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let capture: Capture | undefined;
  let frames: SeenFrame[];

  beforeAll(async () => {
    lab = await labUp(file);
    for (const command of mirrorCommands) await runInHost({ lab: lab.name, host: 'h1' }, command);
    bench = await Bench.start(lab);
    const id = await bench.snapshot();
    await destroyVms(lab);
    const { namespace } = lab.hosts.find(({ name }) => name === 'h1')!;
    capture = await Capture.start(namespace, [...taps, sniffer]);
    const since = await bench.guests.offsets();
    const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`);
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    // A report a second: QEMU's announcements would all have come by then (five rounds within a second).
    await bench.guests.waitForReports(since, 4);
    frames = await capture.stop();
  }, 300_000);
  afterAll(async () => {
    capture?.discard();
    await bench?.server.stop();
    await takeDown(lab);
  }, 60_000);

  it('carries what the guests send, and a sniffer sees it on every tap and behind the bridge', () => {
    for (const name of [...taps, sniffer]) {
      const seen = frames.filter((frame) => frame.interface === name);
      expect(new Set(seen.map(({ sourceMac }) => sourceMac)), name).toEqual(new Set(guests));
    }
  });

  it('carries nothing else: no RARP, no gratuitous ARP, no neighbour discovery, no stranger', () => {
    const foreign = frames.filter((frame) => frame.etherType !== markerEtherType && isForeign(frame));
    expect(foreign.map(describeFrame)).toEqual([]);
  });

  it('carries no marker that comes from a tap', () => {
    const sent = frames.filter(
      ({ interface: name, outbound, etherType }) =>
        etherType === markerEtherType && taps.includes(name) && !outbound,
    );
    expect(sent.map(describeFrame)).toEqual([]);
  });

  for (const { name } of onFirstHost) {
    it(`gives ${name} what other guests sent, and no marker or announcement`, async () => {
      const seen = await readPcap(hostPath(lab, 'h1', captureFile(name, 0)));
      expect(new Set(seen.map(({ sourceMac }) => sourceMac))).toEqual(new Set(guests));
      expect(seen.filter(isForeign).map(describeFrame)).toEqual([]);
    });
  }
});
