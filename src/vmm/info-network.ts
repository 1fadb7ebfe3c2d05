/** A NIC and its backend, as HMP `info network` prints them (QEMU net/net.c, print_net_client). */
export interface NetworkPair {
  readonly netdev: string;
  readonly backend: string;
  /** Of the backend: `ifname`, `fd`, … as far as QEMU prints them. */
  readonly backendInfo: string;
  readonly model: string;
  readonly mac: string;
}

/**
 * Parses lines such as
 * `virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56` followed by
 * ` \ n0: index=0,type=tap,ifname=tap0,script=no,downscript=no`.
 */
export function parseInfoNetwork(text: string): NetworkPair[] {
  const pairs: NetworkPair[] = [];
  let nic: { model: string; mac: string } | null = null;
  for (const line of text.split(/\r?\n/)) {
    const nicMatch = /^(?! \\ )\S.*?: index=\d+,type=nic,model=([^,]+),macaddr=([0-9a-f:]{17})/i.exec(line);
    if (nicMatch !== null) {
      nic = { model: nicMatch[1]!, mac: nicMatch[2]!.toLowerCase() };
      continue;
    }
    const peer = /^ \\ (\S+): index=\d+,type=([a-z0-9-]+),?(.*)$/.exec(line);
    if (peer !== null && nic !== null) {
      const [, netdev, backend, backendInfo] = peer as unknown as [string, string, string, string];
      pairs.push({ netdev, backend, backendInfo, ...nic });
    }
  }
  return pairs;
}
