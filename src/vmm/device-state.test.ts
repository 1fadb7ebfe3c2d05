import { describe, expect, it } from 'vitest';

import { withConfiguration } from './device-state.ts';

describe('a device state', () => {
  const header = Buffer.from('5145564d00000003', 'hex');

  it('gets the configuration section right after the header', () => {
    const stream = withConfiguration(Buffer.concat([header, Buffer.from('rest')]), 'pc-i440fx-7.2');
    expect(stream.toString('latin1')).toBe('QEVM\0\0\0\x03\x07\0\0\0\x0dpc-i440fx-7.2rest');
  });

  it.each(['', '5145564d', '5145564d00000002', '0000000000000003'])(
    'is refused if it begins with "%s"',
    (hex) => {
      expect(() => withConfiguration(Buffer.from(hex, 'hex'), 'pc')).toThrow(/without the header/);
    },
  );
});
