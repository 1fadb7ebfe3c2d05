/** What runs in the guest, in this order: Open vSwitch 3.1 needs a machine that has been up for 10 s. */
export const suites: readonly string[] = [
  'test/network/gate-program.test.ts',
  'test/network/netlink.test.ts',
  'test/network/gate.test.ts',
  'test/network/gate-crash.test.ts',
  'test/network/gated-ports.test.ts',
  'test/network/offload.test.ts',
  'test/kernel/suites/clock.guest.ts',
  'test/kernel/suites/netem.guest.ts',
  'test/kernel/suites/vhost.guest.ts',
  'test/kernel/suites/tcp.guest.ts',
  'test/network/shapes.test.ts',
  'test/network/tunnels.test.ts',
];
