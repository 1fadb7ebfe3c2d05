import { execFileSync, spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { writePcapng } from './write.ts';

const hasTcpdump = spawnSync('tcpdump', ['--version']).status === 0;

describe.skipIf(!hasTcpdump)('a written file in the eyes of tcpdump (needs tcpdump)', () => {
  it('has its packets in order, with their times to the nanosecond', () => {
    const frame = (last: number): Buffer =>
      Buffer.from(
        `ffffffffffff52540000000108060001080006040001525400000001c0000201000000000000c000020${last}`,
        'hex',
      );
    const file = writePcapng({
      section: { userApplication: 'staghorn', comments: ['two requests'] },
      interfaces: [{ name: 'tap0' }, { name: 'tap1' }],
      packets: [
        {
          interfaceIndex: 0,
          timestampNs: 1_700_000_000_123_456_789n,
          data: frame(7),
          comments: ['first'],
          flags: 2,
        },
        { interfaceIndex: 1, timestampNs: 1_700_000_000_123_456_790n, data: frame(8) },
      ],
    });
    const options = ['-r', '-', '-nn', '-tt', '--time-stamp-precision=nano'];
    const output = execFileSync('tcpdump', options, {
      input: file,
      stdio: ['pipe', 'pipe', 'ignore'],
    }).toString();
    expect(output.trim().split('\n')).toEqual([
      expect.stringMatching(/^1700000000\.123456789 .*ARP, Request who-has 192\.0\.2\.7 tell 192\.0\.2\.1/),
      expect.stringMatching(/^1700000000\.123456790 .*ARP, Request who-has 192\.0\.2\.8 tell 192\.0\.2\.1/),
    ]);
  });
});
