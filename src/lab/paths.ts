import { basename, join } from 'node:path';

export const LAB_ROOT = '/var/lib/staghorn/lab';

/** Below this directory a host finds what the lab gives it; `/run` of a host is its own. */
export const HOST_RUN = '/run/staghorn-lab';

/** Where a lab keeps what it has on disk: all of it below one directory, which goes with the lab. */
export interface LabPaths {
  readonly root: string;
  readonly record: string;
  readonly experiment: string;
  readonly sshConfig: string;
  readonly knownHosts: string;
  readonly clientKey: string;
}

/** Directories of a host that replace the machine's own, so that every default path works inside it. */
export const PRIVATE_DIRECTORIES: readonly string[] = [
  '/run',
  '/etc/openvswitch',
  '/var/lib/openvswitch',
  '/var/lib/staghorn',
  '/var/cache/staghorn',
  '/var/log/openvswitch',
];

export function labPaths(lab: string): LabPaths {
  const root = join(LAB_ROOT, lab);
  return {
    root,
    record: join(root, 'lab.json'),
    experiment: join(root, 'experiment.json'),
    sshConfig: join(root, 'ssh_config'),
    knownHosts: join(root, 'known_hosts'),
    clientKey: join(root, 'id_ed25519'),
  };
}

/** A host's path as the machine sees it: `/run/x` of host h is `<lab>/hosts/h/run/x`. */
export function outside(lab: string, host: string, path: string): string {
  return join(LAB_ROOT, lab, 'hosts', host, path);
}

/** A VM's files, as its host sees them. */
export function vmFiles(vm: string) {
  const base = `${HOST_RUN}/${vm}`;
  return {
    qmp: `${base}.qmp`,
    serial: `${base}.serial`,
    pid: `${base}.pid`,
    disk: (index: number) => `${base}.disk${index}`,
  };
}

/** What the tap of a VM's NIC gave to QEMU and got from it, in pcap(5): of the QEMU that was started last. */
export function captureFile(vm: string, nic: number): string {
  return `${HOST_RUN}/${vm}.nic${nic}.pcap`;
}

/** A guest's image, as hosts see it: the cache of images is there as a whole. */
export function imageInHost({ directory }: { directory: string }): string {
  return `${HOST_RUN}/guest/${basename(directory)}`;
}

/** A VM's serial log, as the machine sees it. */
export function serialLog(lab: string, host: string, vm: string): string {
  return outside(lab, host, vmFiles(vm).serial);
}
