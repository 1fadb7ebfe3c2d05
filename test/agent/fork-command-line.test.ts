import { describe, expect, it } from 'vitest';

import { OwnPlaces } from '../../src/agent/fork/own-places.ts';
import { placeCommandLine } from '../../src/agent/fork/place-command-line.ts';
import { formatCommandLine, parseCommandLine } from '../../src/vmm/command-line.ts';

const root = '/forks/f7/web';

function place(...args: string[]) {
  const { options, obstacles } = placeCommandLine(parseCommandLine(args), {
    fork: 7,
    files: new OwnPlaces(root),
    taps: new Map([['net0', 'tap0.f7']]),
  });
  return { args: formatCommandLine(options), obstacles };
}

describe('the command line of a VM in a fork', () => {
  it.each([
    ['-name', 'web', 'web.f7'],
    ['-name', 'guest=web,debug-threads=on', 'guest=web.f7,debug-threads=on'],
    ['-qmp', 'unix:/run/web.qmp,server=on,wait=off', `unix:${root}/web.qmp,server=on,wait=off`],
    ['-qmp', 'unix:/run/web.qmp,server,nowait', `unix:${root}/web.qmp,server,nowait`],
    ['-monitor', 'telnet:127.0.0.1:4444,server,nowait', 'telnet:127.0.0.1:0,server,nowait'],
    ['-monitor', 'tcp::4444,server=on', 'tcp::0,server=on'],
    ['-serial', 'file:/var/log/a,b.log', `file:${root}/a,b.log`],
    ['-serial', 'mon:stdio', 'mon:stdio'],
    ['-serial', 'chardev:serial0', 'chardev:serial0'],
    ['-gdb', 'tcp::1234', 'tcp::0'],
    ['-chardev', 'file,id=c,path=/run/c.log,append=on', `file,id=c,path=${root}/c.log,append=on`],
    ['-chardev', 'socket,path=/run/s,id=c,server=on', `socket,path=${root}/s,id=c,server=on`],
    ['-chardev', 'socket,id=c,host=::1,port=99,server', 'socket,id=c,host=::1,port=0,server'],
    ['-chardev', 'ringbuf,id=c,logfile=/tmp/a,,b', `ringbuf,id=c,logfile=${root}/a,,b`],
    ['-chardev', 'pty,id=c', 'pty,id=c'],
    ['-serial', 'file:/dev/null', 'file:/dev/null'],
    ['-pidfile', '/run/web.pid', `${root}/web.pid`],
    ['-netdev', 'tap,id=net0,ifname=tap0', 'tap,id=net0,ifname=tap0.f7,script=no,downscript=no'],
    [
      '-netdev',
      'tap,ifname=tap0,id=net0,script=/etc/up,vhost=off',
      'tap,ifname=tap0.f7,id=net0,script=no,vhost=off,downscript=no',
    ],
    ['-netdev', 'tap,id=net0', 'tap,id=net0,ifname=tap0.f7,script=no,downscript=no'],
    [
      '-object',
      'filter-dump,id=d,netdev=net0,file=/x.pcap',
      `filter-dump,id=d,netdev=net0,file=${root}/x.pcap`,
    ],
    ['-vnc', '127.0.0.1:1', '127.0.0.1:1,to=9999'],
    ['-vnc', ':1,websocket=5701', ':1,websocket=on,to=9999'],
    ['-vnc', 'unix:/run/v', `unix:${root}/v`],
    ['-display', 'vnc=:3', 'vnc=:3,to=9999'],
    ['-virtfs', 'local,path=/data,readonly=on,mount_tag=d', 'local,path=/data,readonly=on,mount_tag=d'],
    [
      '-device',
      'virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01',
      'virtio-net-pci,netdev=net0,mac=02:00:00:00:00:01',
    ],
  ])('has for %s %s', (option, given, expected) => {
    expect(place(option, given)).toEqual({ args: [option, expected], obstacles: [] });
  });

  it.each([
    ['-netdev', 'user,id=u,hostfwd=tcp::2222-:22'],
    ['-netdev', 'socket,id=s,listen=:1234'],
    ['-chardev', 'socket,id=c,path=/run/tpm.sock'],
    ['-chardev', 'serial,id=c,path=/dev/ttyS0'],
    ['-serial', '/dev/ttyS0'],
    ['-serial', 'tcp:10.0.0.1:23'],
    ['-serial', 'file:/dev/ttyUSB0'],
    ['-device', 'vfio-pci,host=01:00.0'],
    ['-device', 'ivshmem-plain,memdev=m'],
    ['-device', 'vhost-vsock-pci,guest-cid=3'],
    ['-device', '{"driver": "usb-host", "hostbus": 1}'],
    ['-virtfs', 'local,path=/data,mount_tag=d'],
    ['-spice', 'port=5900,disable-ticketing=on'],
    ['-readconfig', '/etc/vm.cfg'],
    ['-tpmdev', 'passthrough,id=t'],
  ])('is impossible with %s %s, and says so', (option, given) => {
    const { obstacles } = place(option, given);
    expect(obstacles).toHaveLength(1);
    expect(obstacles[0]).toContain(`${option} ${given}: `);
  });

  it('gives one file one place, and two files of one name two', () => {
    const { args } = place('-D', '/a/log', '-qtest-log', '/b/log', '-pidfile', '/a/log');
    expect(args[1]).toBe(args[5]);
    expect(args[3]).not.toBe(args[1]);
  });

  it('keeps the paths of sockets short enough for the kernel', () => {
    const { args } = place('-qmp', `unix:/run/${'x'.repeat(90)},server=on`);
    expect(args[1]!.length).toBeLessThan(root.length + 60);
  });

  it('opens no debugger port that another VM has', () => {
    expect(place('-s', '-S').args).toEqual(['-gdb', 'tcp::0', '-S']);
  });
});
