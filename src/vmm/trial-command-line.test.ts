import { describe, expect, it } from 'vitest';

import { formatCommandLine, parseCommandLine } from './command-line.ts';
import { forTrial } from './trial-command-line.ts';

const trial = (line: string) =>
  formatCommandLine(forTrial(parseCommandLine(line.split(' ')), { qmpSocket: '/t/qmp' })).join(' ');
const end = '-display none -qmp unix:/t/qmp,server=on,wait=off';

describe('the command line of a trial', () => {
  it('has nothing of the paths, ports and screens of the VM that may be running', () => {
    const line =
      '-name a -qmp unix:/run/a.qmp,server=on -pidfile /run/a.pid -daemonize -vnc :1 -nographic -serial file:/log ' +
      '-chardev socket,id=c,path=/run/c,server=on -mon chardev=c,mode=control -device virtio-serial -D /log -gdb tcp::1234';
    expect(trial(line)).toBe(`-name a -serial null -chardev null,id=c -device virtio-serial ${end}`);
  });

  it('keeps which character device a serial port is on', () => {
    const line = '-chardev file,id=serial0,path=/log -serial chardev:serial0 -serial mon:stdio';
    expect(trial(line)).toBe(`-chardev null,id=serial0 -serial chardev:serial0 -serial null ${end}`);
  });

  it('keeps the machine and its devices, and gives each NIC a tap without scripts', () => {
    const line =
      '-M pc -m 128 -netdev tap,id=n0,ifname=tap0,vhost=on,queues=2 -device virtio-net-pci,netdev=n0,mq=on';
    expect(trial(line)).toBe(
      `-machine pc -m 128 -netdev tap,id=n0,ifname=tap0,vhost=on,queues=2,script=no,downscript=no -device virtio-net-pci,netdev=n0,mq=on ${end}`,
    );
    expect(trial('-netdev bridge,id=n,br=br0')).toBe(`-netdev tap,id=n,script=no,downscript=no ${end}`);
    expect(trial('-netdev user,id=n')).toBe(`-netdev user,id=n ${end}`);
  });
});
