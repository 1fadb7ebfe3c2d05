import { StaghornError } from '../../errors/index.ts';
import type { HostManifest, StoredVm } from '../../store/manifest.ts';
import type { StoredSwitches } from '../../store/stored-switches.ts';

/** What of a host's part of a snapshot is to come back. */
export interface RestoreSelection {
  /** Names of its VMs; null: all. */
  readonly vms: readonly string[] | null;
  /** It was taken on another host: that one's tunnels and uplinks are none of this one's. */
  readonly moved: boolean;
}

export interface SelectedPart {
  readonly manifest: HostManifest;
  /** Whether it is the whole of what this host had: then its switches are to know what they knew. */
  readonly whole: boolean;
  readonly warnings: readonly string[];
}

/** A manifest of the selected VMs alone, with the ports of theirs. @throws StaghornError 'not-found' */
export function selectPart(manifest: HostManifest, { vms: names, moved }: RestoreSelection): SelectedPart {
  const missing = (names ?? []).filter((name) => !manifest.vms.some((vm) => vm.name === name));
  if (missing.length > 0)
    throw new StaghornError('not-found', `the snapshot has no VM ${missing.join(', ')} of this host`);
  const vms = manifest.vms.filter(({ name }) => names === null || names.includes(name));
  const isAll = vms.length === manifest.vms.length;
  if (isAll && !moved) return { manifest, whole: true, warnings: [] };
  const others = manifest.vms.filter((vm) => !vms.includes(vm));
  const { switches: stored } = manifest;
  const switches = stored === null ? null : moved ? onlyPortsOf(vms, stored) : withoutPortsOf(others, stored);
  const warnings = moved
    ? [
        'the VMs come from another host: tunnels, uplinks and MAC tables of its switches are not made again here',
      ]
    : [];
  return { manifest: { ...manifest, vms, switches }, whole: false, warnings };
}

const tapsOf = (vms: readonly StoredVm[]) => new Set(vms.flatMap(({ nics }) => nics.map(({ tap }) => tap)));

/** The bridges of the other host have ports, flows and neighbours of their own. */
function onlyPortsOf(vms: readonly StoredVm[], { bridges, qdiscs }: StoredSwitches): StoredSwitches {
  const taps = tapsOf(vms);
  return {
    bridges: bridges.flatMap((bridge) => {
      const ports = bridge.ports.filter(({ interfaces }) => interfaces.some(({ name }) => taps.has(name)));
      return ports.length === 0 ? [] : [{ ...bridge, ports, openFlow: null, macTable: null }];
    }),
    qdiscs: qdiscs.filter(({ tap }) => taps.has(tap)),
  };
}

/** Whoever runs on meanwhile has taught the switches what they know. */
function withoutPortsOf(vms: readonly StoredVm[], { bridges, qdiscs }: StoredSwitches): StoredSwitches {
  const taps = tapsOf(vms);
  return {
    bridges: bridges.map((bridge) => ({
      ...bridge,
      ports: bridge.ports.filter(({ interfaces }) => !interfaces.some(({ name }) => taps.has(name))),
      macTable: null,
    })),
    qdiscs: qdiscs.filter(({ tap }) => !taps.has(tap)),
  };
}
