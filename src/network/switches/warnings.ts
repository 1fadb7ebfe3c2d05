import type { BridgeConfig } from './config.ts';
import { linesOf, type OpenFlowTables } from './openflow.ts';

/** What a bridge has that a snapshot does not keep, in words (docs/fidelity.md#switches). */
export function switchWarnings(bridge: BridgeConfig, openFlow: OpenFlowTables | null): string[] {
  const found = [...configRemarks(bridge), ...(openFlow === null ? [] : openFlowRemarks(openFlow))];
  return found.map((text) => `bridge ${bridge.name}: ${text}`);
}

function configRemarks({ columns, controllers, mirrors, extras, ports }: BridgeConfig): string[] {
  const bonds = ports.filter(({ interfaces }) => interfaces.length > 1).map(({ name }) => name);
  return [
    ...(controllers.length > 0
      ? [`controllers (${controllers.join(', ')}) may change its flows at any time, and are not set up again`]
      : []),
    ...(mirrors.length > 0 ? [`mirrors (${mirrors.join(', ')}) are not kept`] : []),
    ...(columns['mcast_snooping_enable'] === true ? ['what multicast snooping has learnt is not kept'] : []),
    ...(columns['rstp_enable'] === true || columns['stp_enable'] === true
      ? ['the state of the spanning tree protocol is not kept']
      : []),
    ...(extras.includes('auto_attach') ? ['VLANs assigned by auto attach are not kept'] : []),
    ...extras.filter((extra) => extra !== 'auto_attach').map((extra) => `${extra} is not kept`),
    ...bonds.map((name) => `which link of bond ${name} carries what is not kept`),
  ];
}

/** Each with how a flow shows that it has it (ovs-actions(7), ovs-ofctl(8)). */
const flowRemarks: readonly (readonly [pattern: RegExp, text: string])[] = [
  [/\bct\(|\bct_state=/, 'flows use connection tracking, whose entries are not kept'],
  [/\blearn\(/, 'flows learn other flows; those are kept as of the beginning of the snapshot'],
  [/\b(idle|hard)_timeout=/, 'flows have time-outs, which begin anew where a restore has to put them back'],
  [/\btun_metadata\d/, 'flows use tunnel options, whose mapping (tlv-map) is not kept'],
];

function openFlowRemarks({ flows, meters }: OpenFlowTables): string[] {
  return [
    ...flowRemarks.filter(([pattern]) => pattern.test(flows)).map(([, text]) => text),
    ...(linesOf(meters).length > 0 ? ['how full its meters are is not kept'] : []),
  ];
}
