import { describe, expect, it } from 'vitest';

import {
  formatCommandLine,
  forRestore,
  isRestoreFrom,
  parseCommandLine,
  parseParameters,
  qmpSocketPaths,
  unrestorableOptions,
  vmName,
  withoutRestoreOptions,
} from './command-line.ts';

const minimega = [
  '-M', 'pc', '-name', 'guest=r1,debug-threads=on', '-m', '128', '-daemonize',
  '-qmp', 'unix:/tmp/a,,b.sock,server=on,wait=off', '-netdev', 'tap,id=n0,ifname=tap0,script=no', 'disk.img',
]; // prettier-ignore
const image = { ramFile: '/snap/r1.ram', ramBytes: 134217728, backends: [] };

describe('a QEMU command line', () => {
  it('is parsed into options and written back the same', () => {
    expect(formatCommandLine(parseCommandLine(minimega))).toEqual(['-machine', ...minimega.slice(1)]);
  });

  it('gives the name with and without further parameters', () => {
    expect(vmName(parseCommandLine(minimega))).toBe('r1');
    expect(vmName(parseCommandLine(['-name', 'r2']))).toBe('r2');
    expect(vmName(parseCommandLine([]))).toBeNull();
  });

  it('gives QMP sockets from -qmp and from -mon, with escaped commas', () => {
    const viaMon = ['-chardev', 'socket,id=m,path=/run/m.sock,server=on', '-mon', 'chardev=m,mode=control'];
    expect(qmpSocketPaths(parseCommandLine([...minimega, ...viaMon]))).toEqual([
      '/tmp/a,b.sock',
      '/run/m.sock',
    ]);
    expect(qmpSocketPaths(parseCommandLine(['-qmp', 'tcp:127.0.0.1:4444']))).toEqual([]);
  });

  it('puts a value without a key under the implied key', () => {
    expect([...parseParameters('tap,id=a,,b,vhost', 'type')]).toEqual([
      ['type', 'tap'],
      ['id', 'a,b'],
      ['vhost', 'on'],
    ]);
  });

  it('is rewritten for a restore and comes back as it was written', () => {
    const original = parseCommandLine(minimega);
    const restored = forRestore(original, image);
    expect(formatCommandLine(restored).join(' ')).toContain(
      '-object memory-backend-file,id=staghorn-ram,size=134217728,share=off,mem-path=/snap/r1.ram ' +
        '-machine memory-backend=staghorn-ram -S -incoming defer',
    );
    expect(withoutRestoreOptions(restored)).toEqual(original);
    expect(forRestore(restored, image)).toEqual(restored);
  });

  it('tells from which snapshot it restores', () => {
    const restored = forRestore(parseCommandLine(minimega), image);
    expect(isRestoreFrom(restored, '/snap')).toBe(true);
    expect(isRestoreFrom(restored, '/sna')).toBe(false);
    expect(isRestoreFrom(parseCommandLine(minimega), '/snap')).toBe(false);
  });

  it('keeps the id of a memory backend that the VM already has', () => {
    const options = parseCommandLine([
      '-object',
      'memory-backend-ram,id=ram0,size=1G',
      '-machine',
      'pc,memory-backend=ram0',
    ]);
    const text = formatCommandLine(forRestore(options, image)).join(' ');
    expect(text).toContain('memory-backend-file,id=ram0,size=134217728,share=off,mem-path=/snap/r1.ram');
    expect(text).not.toContain('staghorn-ram');
  });

  it('gets every memory object from a file of its own, and plugs in again what was plugged in', () => {
    const options = parseCommandLine(
      '-m 64,slots=2,maxmem=1G -object memory-backend-ram,id=n0,size=32M -numa node,memdev=n0'.split(' '),
    );
    const backends = [
      { id: 'hot', device: 'pc-dimm,id=d,memdev=hot,slot=0', file: '/snap/r1.ram1', bytes: 1048576 },
    ];
    const restored = forRestore(options, { ...image, backends });
    const text = formatCommandLine(restored).join(' ');
    expect(text).toContain(
      '-object memory-backend-file,id=n0,size=134217728,share=off,mem-path=/snap/r1.ram ',
    );
    expect(text).toContain(
      '-object memory-backend-file,id=hot,size=1048576,share=off,mem-path=/snap/r1.ram1 ',
    );
    expect(text).toContain('-device pc-dimm,id=d,memdev=hot,slot=0 -S -incoming defer');
    // A restored VM has the DIMM in its command line: saved again, nothing is left to plug in.
    const again = forRestore(restored, { ...image, backends: [{ ...backends[0]!, device: null }] });
    expect(again).toEqual(restored);
  });

  it('says what a restore could not bring back', () => {
    const vhostUser = ['-device', 'vhost-user-blk-pci,chardev=c'];
    const options = parseCommandLine(['-netdev', 'tap,id=n,fd=23', '-incoming', 'tcp:0:4444', ...vhostUser]);
    expect(unrestorableOptions(options)).toEqual([
      expect.stringContaining('fd='),
      expect.stringContaining('-incoming'),
      expect.stringContaining('shares its RAM'),
    ]);
    expect(unrestorableOptions(parseCommandLine(minimega))).toEqual([]);
  });
});
