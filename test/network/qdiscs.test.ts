import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeQdiscs, qdiscWarnings, readOwnQdiscs } from '../../src/network/switches/qdiscs.ts';
import { NetworkLab } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';

describe('the queueing disciplines of a tap', () => {
  let lab: NetworkLab;
  let tap: LabTap;

  beforeEach(() => {
    lab = NetworkLab.enter();
    tap = lab.tap();
  });

  afterEach(() => {
    lab.leave();
  });

  const tc = (words: string) => lab.tc(...words.split(' '));
  const listed = (name: string) =>
    [tc(`qdisc show dev ${name}`), tc(`class show dev ${name}`)]
      .join('')
      .replaceAll(name, 'TAP')
      .replaceAll(/ direct_packets_stat \d+/g, '');

  const shapes: Readonly<Record<string, readonly string[]>> = {
    'a token bucket': ['qdisc add dev TAP root handle 5: tbf rate 8mbit burst 2kb latency 400ms'],
    'a token bucket with a queue of its own': [
      'qdisc add dev TAP root handle 5: tbf rate 8mbit burst 2kb latency 400ms peakrate 9mbit mtu 1600',
      'qdisc add dev TAP parent 5:1 handle 6: pfifo limit 17',
    ],
    'a hierarchy of classes': [
      'qdisc add dev TAP root handle 1: htb default 12 r2q 7',
      'class add dev TAP parent 1: classid 1:1 htb rate 10mbit burst 15k',
      'class add dev TAP parent 1:1 classid 1:10 htb rate 3mbit ceil 8mbit prio 1',
      'class add dev TAP parent 1:1 classid 1:12 htb rate 7mbit ceil 10mbit prio 2 quantum 3000',
      'qdisc add dev TAP parent 1:10 handle 20: tbf rate 1mbit burst 2kb latency 100ms',
      'qdisc add dev TAP parent 1:12 handle 30: pfifo limit 5',
    ],
  };

  for (const [name, commands] of Object.entries(shapes)) {
    it(`come again on another tap: ${name}`, () => {
      for (const command of commands) tc(command.replace('TAP', tap.name));
      const other = lab.tap();
      const stored = readOwnQdiscs(tap.name, tap.ifindex);
      expect(makeQdiscs({ ...stored, tap: other.name }, other.ifindex)).toEqual([]);
      expect(listed(other.name)).toBe(listed(tap.name));
      expect(readOwnQdiscs(tap.name, other.ifindex)).toEqual(stored);
    });
  }

  it('are made in place of others', () => {
    tc(`qdisc add dev ${tap.name} root handle 5: tbf rate 8mbit burst 2kb latency 400ms`);
    const stored = readOwnQdiscs(tap.name, tap.ifindex);
    tc(`qdisc replace dev ${tap.name} root handle 7: pfifo limit 3`);
    expect(makeQdiscs(stored, tap.ifindex)).toEqual([]);
    expect(readOwnQdiscs(tap.name, tap.ifindex)).toEqual(stored);
  });

  it("are none where there are only the kernel's own", () => {
    expect(readOwnQdiscs(tap.name, tap.ifindex)).toEqual({ tap: tap.name, qdiscs: [], classes: [] });
    expect(qdiscWarnings(tap.name, tap.ifindex)).toEqual([]);
  });

  it('warn of filters and of ingress qdiscs, which are not kept', () => {
    tc(`qdisc add dev ${tap.name} root handle 1: htb default 1`);
    tc(`class add dev ${tap.name} parent 1: classid 1:1 htb rate 10mbit`);
    expect(qdiscWarnings(tap.name, tap.ifindex)).toEqual([]);
    tc(`filter add dev ${tap.name} parent 1: protocol ip prio 1 u32 match u32 0 0 flowid 1:1`);
    tc(`qdisc add dev ${tap.name} clsact`);
    expect(qdiscWarnings(tap.name, tap.ifindex)).toEqual([
      `the traffic control filters of tap ${tap.name} are not kept`,
      `the clsact qdisc of tap ${tap.name} is not kept, nor are its filters`,
    ]);
  });

  it('say so when the kernel does not know one', () => {
    const unknown = { kind: 'no-such', handle: 0x10000, parent: 0xffffffff, options: '' };
    const problems = makeQdiscs({ tap: tap.name, qdiscs: [unknown], classes: [] }, tap.ifindex);
    expect(problems).toEqual([expect.stringMatching(/could not be made again: qdisc no-such 1:0 .*ENOENT/)]);
  });
});
