import { describe, expect, it } from 'vitest';
import { addressIn, containsAddress, overlaps, parseSubnet, subnetOf } from './subnet.ts';

describe('a subnet', () => {
  it('is refused with host bits, without a prefix length, or with parts out of range', () => {
    for (const text of ['10.0.0.1/24', '10.0.0.0', '10.0.0.0/33', '256.0.0.0/8', '10.0.0.0/24/1', 'x'])
      expect(parseSubnet(text)).toBeUndefined();
    expect(parseSubnet('198.18.0.0/15')).toEqual({ base: 0xc6120000, prefix: 15 });
  });

  it('has neither its own address nor the broadcast address to give', () => {
    const subnet = parseSubnet('10.0.0.0/28')!;
    expect(addressIn(subnet, 0)).toBeUndefined();
    expect(addressIn(subnet, 14)).toBe('10.0.0.14');
    expect(addressIn(subnet, 15)).toBeUndefined();
    expect(containsAddress(subnet, '10.0.0.15')).toBe(false);
  });

  it('overlaps with what contains it, is in it, or is it', () => {
    const [wide, narrow, beside] = ['10.0.0.0/16', '10.0.5.0/24', '10.1.0.0/16'].map((text) =>
      parseSubnet(text)!,
    );
    expect(overlaps(wide!, narrow!) && overlaps(narrow!, wide!) && overlaps(wide!, wide!)).toBe(true);
    expect(overlaps(wide!, beside!) || overlaps(beside!, narrow!)).toBe(false);
    expect(subnetOf('10.0.5.77', 24)).toEqual(narrow);
  });
});
