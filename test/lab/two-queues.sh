#!/bin/sh
# Do datagrams overtake each other between the queues of a NIC without any snapshot? Two VMs on one host, first with
# one queue, then with two, send to each other for a while; nothing else happens. Prints the last report of each guest.
# Usage: test/lab/two-queues.sh [SECONDS]; after a build, as root. A busy machine shows more.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-60}
lab=queues-$$
file=$(mktemp)
down() {
  node dist/cli/main.js lab down "$lab" >/dev/null || true
  rm -f "$file"
}
trap down EXIT
trap 'exit 1' INT TERM
for queues in 1 2; do
  cat >"$file" <<END
name: $lab
management: 198.18.242.0/24
underlay: 198.19.242.0/24
hosts: [{ name: h1 }]
vms:
  - { name: a, host: h1, memoryMiB: 96, cpus: 2, nics: [{ queues: $queues }], probe: { udpIntervalMs: 5 } }
  - { name: b, host: h1, memoryMiB: 96, cpus: 2, nics: [{ queues: $queues }], probe: { udpIntervalMs: 5 } }
END
  node dist/cli/main.js lab up "$file" >/dev/null
  sleep "$seconds"
  for vm in a b; do
    report=$(grep -a '"t":"report".*]}' "/var/lib/staghorn/lab/$lab/hosts/h1/run/staghorn-lab/$vm.serial" | tail -n 1)
    counts=$(echo "$report" | grep -o '"\(received\|lost\|duplicated\|reordered\|tcpRetransmissions\)":[0-9]*' | tr -d '"' | tr '\n' ' ')
    echo "queues: $queues, VM $vm: $counts(load $(cut -d ' ' -f 1 /proc/loadavg))"
  done
  node dist/cli/main.js lab down "$lab" >/dev/null
done
