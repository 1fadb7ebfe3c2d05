import { describe, expect, it } from 'vitest';
import { kernelNeeds } from './kernel-check.ts';
import { parseLabFile } from './lab-file.ts';
import { linkShapingCommands } from './link-shaping.ts';
import { planLab } from './plan.ts';
import { inPlace, shapedDevices } from './shaped-devices.ts';
import { describeShape, qdiscArguments, shapeSchema } from './shaping.ts';
import { portCommands, switchCommands } from './switches.ts';

const words = (shape: unknown, mtuBytes = 1500): string =>
  qdiscArguments(shapeSchema.parse(shape), mtuBytes).join(' ');

describe('a shape', () => {
  it('is a token bucket if it is a rate alone, with room for a thousand full frames', () => {
    expect(words({ rate: '8mbit', burst: '2kb' })).toBe('tbf rate 8mbit burst 2048b limit 1518000b');
    expect(words({ rate: '8mbit', limit: 10 }, 9000)).toBe('tbf rate 8mbit burst 9018b limit 90180b');
  });

  it('is netem in everything that delays or loses', () => {
    expect(words({ delay: '20ms', loss: '0.5%', rate: '1mbit' })).toBe(
      'netem limit 1000 delay 20ms loss random 0.5% rate 1mbit',
    );
    expect(words({ loss: '1%' })).toBe('netem limit 1000 delay 0ms loss random 1%');
  });

  it('keeps frames in order while it jitters, by a rate', () => {
    expect(words({ delay: '20ms', jitter: '5ms' })).toBe('netem limit 1000 delay 20ms 5ms rate 100gbit');
    expect(words({ delay: '20ms', jitter: '5ms', rate: '1mbit' })).toMatch(/delay 20ms 5ms rate 1mbit$/);
  });

  it('is refused where its keys do not fit together', () => {
    const problems = (shape: unknown): (string | undefined)[] =>
      shapeSchema.safeParse(shape).error?.issues.map(({ message }) => message) ?? [];
    expect(problems({})).toEqual(['a shape needs a rate, a delay or a loss']);
    expect(problems({ rate: '1mbit', jitter: '1ms' })).toEqual(['jitter is of a delay, and there is none']);
    expect(problems({ rate: '1mbit', delay: '1ms', burst: '4kb' })).toEqual([
      'only a rate without delay and loss has a burst',
    ]);
    expect(problems({ rate: '1mbit', loss: '101%' })).toHaveLength(1);
  });

  it('is told in a few words', () => {
    const shape = shapeSchema.parse({ rate: '8mbit', delay: '20ms', jitter: '2ms', loss: '1%' });
    expect(describeShape(shape)).toBe('8mbit, 20ms ± 2ms, 1% lost');
  });
});

const plan = planLab(
  parseLabFile(`name: shaped
hosts: [{ name: h1 }, { name: h2 }, { name: h3, switches: [{ name: br-int }, { name: br-b }] }, { name: h4, switches: [{ name: br-b }] }]
links:
  - { from: h1, to: h2, shape: { rate: 10mbit }, shapeBack: { delay: 5ms } }
  - { from: h3, to: h1, type: geneve }
  - { from: h3, to: h4, type: gre, switch: br-b, key: 7, shape: { loss: 1% } }
vms:
  - { name: a, host: h1, nics: [{ shape: { rate: 8mbit } }, { ip: 10.77.0.99, mac: '02:00:00:00:00:01' }] }
  - { name: b, host: h2 }
`),
);

describe('shaped links', () => {
  const commandsOf = (host: number): string[] =>
    linkShapingCommands(plan.hosts[host]!).map((command) => command.join(' '));

  it('have a queue each, told by the other host and the key of the tunnel', () => {
    expect(commandsOf(0)).toEqual([
      'tc qdisc replace dev underlay root handle 1: htb',
      'tc class add dev underlay parent 1: classid 1:1 htb rate 100gbit quantum 60000',
      'tc qdisc add dev underlay parent 1:1 tbf rate 10mbit burst 4096b limit 1572000b',
      'tc filter add dev underlay parent 1: protocol ip prio 1 u32 match ip dst 198.19.0.12/32 ' +
        'match ip protocol 17 0xff match u32 0x00006400 0xffffff00 at 32 flowid 1:1',
    ]);
    expect(commandsOf(2).at(-1)).toContain('protocol 47 0xff match u32 0x00000007 0xffffffff at 24');
  });

  it('may differ by direction', () => {
    expect(commandsOf(1)[2]).toBe('tc qdisc add dev underlay parent 1:1 netem limit 1000 delay 5ms');
    expect(commandsOf(3)[2]).toContain('loss random 1%');
  });

  it('have Open vSwitch leave the port of the underlay alone, and no other does', () => {
    const text = (host: number): string => switchCommands(plan.hosts[host]!).flat().join(' ');
    expect(text(0)).toContain('set port underlay qos=@shaped');
    const plain = planLab(parseLabFile('name: x\nhosts: [{ name: h1 }]\nvms: [{ name: a, host: h1 }]\n'));
    const commands = [...switchCommands(plain.hosts[0]!), ...portCommands(plain.vms[0]!)].flat();
    expect(commands).not.toContain('tc');
    expect(commands.join(' ')).not.toContain('linux-noop');
  });

  it('ask the kernel for each part once, and say what for', () => {
    expect(kernelNeeds(plan)).toEqual([
      { part: 'tbf', by: 'NIC 0 of VM "a"' },
      { part: 'htb', by: 'the link from "h1" to "h2"' },
      { part: 'u32', by: 'the link from "h1" to "h2"' },
      { part: 'netem', by: 'the link from "h2" to "h1"' },
    ]);
  });

  it('are in place as far as tc shows them', () => {
    const devices = shapedDevices(plan).filter(({ host }) => host === 'h1');
    expect(devices.map(({ device, towards, shape }) => [device, towards, shape])).toEqual([
      ['tap0-0', 'VM a', '8mbit'],
      ['underlay', 'link to h2 (br-int)', '10mbit'],
    ]);
    const shown = (...qdiscs: { kind: string; dev: string }[]) => inPlace(devices, JSON.stringify(qdiscs));
    const onTap = { kind: 'tbf', dev: 'tap0-0' };
    expect(shown(onTap, { kind: 'htb', dev: 'underlay' }, { kind: 'tbf', dev: 'underlay' })).toEqual([
      true,
      true,
    ]);
    expect(shown(onTap, { kind: 'noqueue', dev: 'underlay' })).toEqual([true, false]);
    expect(inPlace(devices, '')).toEqual([false, false]);
  });
});
