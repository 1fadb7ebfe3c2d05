import type { RxFilter } from '../qmp/index.ts';

type VlanFilter = Pick<RxFilter, 'name' | 'promiscuous' | 'vlan' | 'vlan-table'>;

/**
 * Virtio NICs, from `query-rx-filter`, whose guest asked for VLANs that QEMU forgets when it loads them: virtio_load sets the features after it has
 * loaded the device, and with VIRTIO_NET_F_CTRL_VLAN that empties the table (hw/net/virtio-net.c of QEMU 7.2,
 * virtio_net_set_features). In words, one for each.
 */
export function forgottenVlans(vm: string, filters: readonly VlanFilter[]): string[] {
  return filters.flatMap(({ name, promiscuous, vlan, 'vlan-table': table }) => {
    const tags = table.filter((tag) => tag !== 0).sort((a, b) => a - b);
    if (promiscuous || vlan !== 'normal' || tags.length === 0) return [];
    return [
      `VM ${vm}: QEMU forgets at a restore that the guest takes VLAN ${tags.join(', ')} from NIC ${name}, ` +
        'and drops what is tagged so; launch it with ctrl_vlan=off',
    ];
  });
}
