import { closeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { unplugTaps } from '../../src/agent/recovery/orphan-taps.ts';
import { Gate, sendFrames } from '../../src/native/gate.ts';
import { setLink } from '../../src/native/netlink.ts';
import { plugTap } from '../../src/native/plug.ts';
import { makePersistentTap, openTap, readTapFrames } from '../../src/native/tap.ts';
import { NetworkLab, numberedFrame, numberOf } from './network-lab.ts';

describe('a plug in a tap', () => {
  let lab: NetworkLab;
  let ifindex: number;

  beforeEach(() => {
    lab = NetworkLab.enter();
    makePersistentTap({ name: 'plugged' });
    ifindex = lab.ifindex('plugged');
    setLink({ ifindex, up: true });
    const fd = openTap({ name: 'plugged' });
    plugTap(fd);
    closeSync(fd);
  });

  afterEach(() => lab.leave());

  const received = (fd: number, ...sent: number[]) => {
    sendFrames(
      ifindex,
      sent.map((number) => numberedFrame(number)),
    );
    return readTapFrames(fd).map(({ frame }) => numberOf(frame));
  };

  it('drops what comes, also for who opens the tap later, until a gate takes its place', () => {
    const fd = openTap({ name: 'plugged' });
    const gate = Gate.create({ slots: 1, ringBytes: 1 << 20, hold: true });
    try {
      expect(received(fd, 1)).toEqual([]);
      gate.attachTap({ fd, slot: 0 });
      expect(received(fd, 2)).toEqual([]);
      expect(gate.peek().map(({ frame }) => numberOf(frame))).toEqual([2]);
    } finally {
      gate.close();
      closeSync(fd);
    }
  });

  it('is taken off a tap that nobody has open', () => {
    unplugTaps(['plugged', 'no-such-tap']);
    const fd = openTap({ name: 'plugged' });
    try {
      expect(received(fd, 1)).toEqual([1]);
    } finally {
      closeSync(fd);
    }
  });
});
