import { describe, expect, it } from 'vitest';

import { isOfNewBridge, withoutCounters } from './flow-memory.ts';

describe('flows as the switch dumps them', () => {
  const dump = (seconds: string, packets: number, action = 'NORMAL') =>
    `duration=${seconds}s, n_packets=${packets}, n_bytes=${packets * 60}, priority=0,actions=${action}\n` +
    `table_id=254, duration=${seconds}s, n_packets=0, n_bytes=0, priority=2,recirc_id=0,actions=drop\n`;

  it('are the same whatever has counted since', () => {
    expect(withoutCounters(dump('12', 7))).toBe(withoutCounters(dump('93', 81)));
    expect(withoutCounters(dump('12', 7))).toBe(
      'priority=0,actions=NORMAL\ntable_id=254, priority=2,recirc_id=0,actions=drop\n',
    );
  });

  it('are those of a new bridge if there is one alone, which switches as usual', () => {
    expect(isOfNewBridge(withoutCounters(dump('12', 7)))).toBe(true);
    expect(isOfNewBridge(withoutCounters(dump('12', 7, 'drop')))).toBe(false);
    expect(isOfNewBridge(withoutCounters(dump('12', 7) + dump('12', 7)))).toBe(false);
    expect(isOfNewBridge('')).toBe(false);
  });

  it('are not the same with another action', () => {
    expect(withoutCounters(dump('12', 7))).not.toBe(withoutCounters(dump('12', 7, 'drop')));
  });
});
