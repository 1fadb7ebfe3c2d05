import { expect, it } from 'vitest';

import { parseInfoNetwork } from './info-network.ts';

it('reads NICs with their backends from info network', () => {
  const text =
    'net1: index=0,type=nic,model=e1000,macaddr=52:54:00:AA:00:01\r\n' +
    ' \\ n1: index=0,type=tap,ifname=tap7,script=no,downscript=no\r\n' +
    'v.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:aa:00:02\r\n' +
    ' \\ n2: index=0,type=vhost-user,chardev=c0\r\n' +
    'lonely: index=0,type=nic,model=e1000,macaddr=52:54:00:aa:00:03\r\n';
  expect(parseInfoNetwork(text)).toEqual([
    {
      netdev: 'n1',
      backend: 'tap',
      backendInfo: 'ifname=tap7,script=no,downscript=no',
      model: 'e1000',
      mac: '52:54:00:aa:00:01',
    },
    {
      netdev: 'n2',
      backend: 'vhost-user',
      backendInfo: 'chardev=c0',
      model: 'virtio-net-pci',
      mac: '52:54:00:aa:00:02',
    },
  ]);
});
