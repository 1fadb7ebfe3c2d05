import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readTapFrames } from '../../src/native/tap.ts';
import { readMacTable } from '../../src/network/switches/mac-table.ts';
import { lessonFrame, teachMacTable } from '../../src/network/switches/mac-teaching.ts';
import type { MacLesson } from '../../src/network/switches/mac-teaching.ts';
import { NetworkLab } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';
import { OpenVSwitch } from './open-vswitch.ts';

describe('teaching a bridge its MAC table', () => {
  let lab: NetworkLab;
  let ovs: OpenVSwitch;
  let access: LabTap;
  let trunk: LabTap;

  beforeEach(async () => {
    lab = NetworkLab.enter();
    ovs = await OpenVSwitch.start();
    access = lab.tap();
    trunk = lab.tap();
    ovs.bridge('br0', { [access.name]: ['tag=5'], [trunk.name]: [] });
    lab.ip('link', 'set', 'br0', 'up');
  });

  afterEach(async () => {
    await ovs.stop();
    lab.leave();
  });

  const lesson = (tap: LabTap | 'LOCAL', vlan: number, mac: string, ageS: number | null = 0): MacLesson => ({
    interface: tap === 'LOCAL' ? 'br0' : tap.name,
    port: tap === 'LOCAL' ? 'LOCAL' : ovs.ofport(tap.name),
    untaggedVlan: tap === access ? 5 : 0,
    vlan,
    mac,
    ageS,
  });
  const known = async () =>
    (await readMacTable('br0'))
      .map(({ port, vlan, mac, ageS }) => `${mac} ${vlan} ${port}${ageS === null ? ' static' : ''}`)
      .sort();
  const left = (device: string) =>
    Number(/TX:.*\n +\d+ +(\d+)/.exec(lab.ip('-s', 'link', 'show', device))?.[1]);

  for (const protocols of ['OpenFlow10,OpenFlow14', 'OpenFlow13', 'OpenFlow10']) {
    it(`makes entries that age, behind every kind of port, by ${protocols}; no frame leaves any port`, async () => {
      ovs.vsctl('set', 'bridge', 'br0', `protocols=${protocols}`);
      const lessons = [
        lesson(access, 5, '02:00:00:00:00:01'),
        lesson(trunk, 0, '02:00:00:00:00:02'),
        lesson(trunk, 5, '02:00:00:00:00:03'),
        lesson(trunk, 5, '02:00:00:00:00:04'),
        lesson('LOCAL', 0, '02:00:00:00:00:05'),
        lesson(trunk, 9, '02:00:00:00:00:06', null),
      ];
      const before = left('br0');
      expect(await teachMacTable('br0', lessons)).toEqual([]);
      const [first, second] = [ovs.ofport(access.name), ovs.ofport(trunk.name)];
      expect(await known()).toEqual([
        `02:00:00:00:00:01 5 ${first}`,
        `02:00:00:00:00:02 0 ${second}`,
        `02:00:00:00:00:03 5 ${second}`,
        `02:00:00:00:00:04 5 ${second}`,
        '02:00:00:00:00:05 0 LOCAL',
        `02:00:00:00:00:06 9 ${second} static`,
      ]);
      expect([...readTapFrames(access.fd), ...readTapFrames(trunk.fd)]).toEqual([]);
      expect(left('br0')).toBe(before);
    });
  }

  it('moves what another time line has learnt elsewhere, and forgets what it has learnt besides', async () => {
    const moved = '02:00:00:00:00:01';
    await teachMacTable('br0', [lesson(trunk, 5, moved), lesson(trunk, 5, '02:00:00:00:00:99')]);
    expect(await teachMacTable('br0', [lesson(access, 5, moved)])).toEqual([]);
    expect(await known()).toEqual([`${moved} 5 ${ovs.ofport(access.name)}`]);
  });

  it('says what the switch does not take: an address in a VLAN that the port is not in', async () => {
    const problems = await teachMacTable('br0', [lesson(access, 6, '02:00:00:00:00:01')]);
    expect(problems).toEqual([expect.stringMatching(/02:00:00:00:00:01 \(VLAN 6\) is behind tap/)]);
  });

  it('leaves no anchor behind when the switch refuses the frames', async () => {
    const nowhere = { ...lesson(access, 5, '02:00:00:00:00:01'), port: 'LOCAL' as const, mac: 'no address' };
    await expect(teachMacTable('br0', [nowhere])).rejects.toMatchObject({ code: 'network-unfit' });
    expect(await known()).toEqual([]);
  });

  it('teaches a table of a thousand addresses', async () => {
    const models = [lesson(trunk, 5, ''), lesson(access, 5, '')];
    const lessons = Array.from({ length: 1000 }, (_, place) => ({
      ...models[place % 2]!,
      mac: `02:00:00:01:${hex(place >> 8)}:${hex(place & 255)}`,
    }));
    expect(await teachMacTable('br0', lessons)).toEqual([]);
    expect(await known()).toHaveLength(1000);
    expect([...readTapFrames(access.fd), ...readTapFrames(trunk.fd)]).toEqual([]);
  });
});

describe('the frame that a switch learns from', () => {
  const mac = '02:00:00:00:00:01';
  const anchor = '02:57:a6:00:00:00';

  it('has no tag in the VLAN that untagged frames fall into, and one in any other', () => {
    const plain = lessonFrame({ mac, vlan: 5, untaggedVlan: 5 }, anchor);
    const tagged = lessonFrame({ mac, vlan: 5, untaggedVlan: 0 }, anchor);
    expect(plain).toMatch(/^0257a6000000020000000001 *88b60+$/);
    expect(tagged).toMatch(/^0257a60000000200000000018100000588b60+$/);
    expect([plain.length, tagged.length]).toEqual([120, 120]);
  });
});

const hex = (byte: number) => byte.toString(16).padStart(2, '0');
