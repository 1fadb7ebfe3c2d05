import { messageOf } from '../../errors/index.ts';
import type { Link } from '../../native/netlink.ts';
import { readMacTables, type MacEntry } from '../../network/switches/mac-table.ts';
import { qdiscWarnings, readOwnQdiscs } from '../../network/switches/qdiscs.ts';
import { bridgesAround, selectBridges, type BridgeConfig } from '../../network/switches/config.ts';
import type { OpenFlowMemory } from '../../network/switches/openflow-memory.ts';
import type { OpenFlowTables } from '../../network/switches/openflow.ts';
import { asking } from '../../network/switches/ports.ts';
import { switchWarnings } from '../../network/switches/warnings.ts';
import type { OvsdbClient } from '../../ovsdb/index.ts';
import type { PartialSnapshot } from '../../store/snapshot-directory.ts';
import type { StoredBridge, StoredMac, StoredQdiscs, StoredSwitches } from '../../store/stored-switches.ts';
import type { ControlledVm } from '../../vmm/controlled-vm.ts';

interface ReadBridge {
  readonly config: BridgeConfig;
  readonly localUp: boolean;
  /** Null if the bridge does not tell. */
  readonly openFlow: OpenFlowTables | null;
}

/** What the switches are asked with. */
export interface SwitchReading {
  readonly database: OvsdbClient;
  readonly openFlow: OpenFlowMemory;
  readonly signal: AbortSignal;
}

/**
 * Keeps the state of the switches that the VMs of a snapshot are plugged into: what they are set to is read while the
 * barrier is armed, what they have learnt when time stands still.
 */
export class SwitchSaver {
  /** What will not be kept, in words. */
  readonly warnings: readonly string[];
  readonly #bridges: readonly ReadBridge[];
  readonly #qdiscs: readonly StoredQdiscs[];
  readonly #readsMacTables: boolean;
  #macTables: ReadonlyMap<string, readonly MacEntry[]> = new Map();

  private constructor(
    bridges: readonly ReadBridge[],
    qdiscs: readonly StoredQdiscs[],
    found: { warnings: readonly string[]; readsMacTables: boolean },
  ) {
    this.#bridges = bridges;
    this.#qdiscs = qdiscs;
    this.warnings = found.warnings;
    this.#readsMacTables = found.readsMacTables;
  }

  /** @throws StaghornError 'host-unfit' if Open vSwitch's database does not answer */
  static async prepare(
    links: readonly Link[],
    vms: readonly ControlledVm[],
    { database, openFlow, signal }: SwitchReading,
  ): Promise<SwitchSaver> {
    const taps = vms.flatMap(({ vm }) => vm.nics.map(({ tap, ifindex }) => ({ tap, ifindex })));
    const configs = bridgesAround(
      await asking(signal, () => selectBridges(database, signal)),
      new Set(taps.map(({ tap }) => tap)),
    );
    const upDevices = new Set(links.filter(({ up }) => up).map(({ name }) => name));
    const read = await Promise.all(configs.map((config) => readBridge(config, openFlow, signal)));
    const shaped = new Set(configs.flatMap(shapedBySwitch));
    const byHand = taps.filter(({ tap }) => !shaped.has(tap));
    const refusal = await readMacTables(
      configs.map(({ name }) => name),
      signal,
    ).then(() => null, messageOf);
    signal.throwIfAborted();
    const warnings = [
      ...read.flatMap(({ warnings }) => warnings),
      ...byHand.flatMap(({ tap, ifindex }) => qdiscWarnings(tap, ifindex)),
      ...(refusal === null ? [] : [`what the switches have learnt is not kept: ${refusal}`]),
    ];
    const bridges = read.map((bridge) => ({ ...bridge, localUp: upDevices.has(bridge.config.name) }));
    const qdiscs = byHand.map(({ tap, ifindex }) => readOwnQdiscs(tap, ifindex));
    return new SwitchSaver(
      bridges,
      qdiscs.filter(({ qdiscs }) => qdiscs.length > 0),
      { warnings, readsMacTables: refusal === null },
    );
  }

  /** Reads what was learnt: time stands still, and nothing is in flight any more. @throws StaghornError 'host-unfit' */
  async keep(signal: AbortSignal): Promise<void> {
    if (!this.#readsMacTables || this.#bridges.length === 0) return;
    this.#macTables = await readMacTables(
      this.#bridges.map(({ config }) => config.name),
      signal,
    );
  }

  /** Writes the files of the switches, and gives their part of the manifest. */
  async store(directory: PartialSnapshot): Promise<StoredSwitches> {
    const bridges: StoredBridge[] = [];
    for (const [place, { config, openFlow, localUp }] of this.#bridges.entries()) {
      const table = this.#macTables.get(config.name);
      const { name, columns, ports, localMac, controllers } = config;
      bridges.push({
        ...{ name, columns, ports: [...ports], localMac, localUp, controllers: [...controllers] },
        openFlow: openFlow === null ? null : await storeOpenFlow(directory, `bridge${place}`, openFlow),
        macTable: table === undefined ? null : table.flatMap((entry) => storedMac(config, entry)),
      });
    }
    return { bridges, qdiscs: [...this.#qdiscs] };
  }
}

async function readBridge(config: BridgeConfig, memory: OpenFlowMemory, signal: AbortSignal) {
  try {
    const openFlow = await memory.read(config.name, signal);
    return { config, openFlow, warnings: switchWarnings(config, openFlow) };
  } catch (error) {
    signal.throwIfAborted();
    const refusal = `bridge ${config.name}: its flows are not kept: ${messageOf(error)}`;
    return { config, openFlow: null, warnings: [...switchWarnings(config, null), refusal] };
  }
}

async function storeOpenFlow(directory: PartialSnapshot, name: string, tables: OpenFlowTables) {
  const write = (what: keyof OpenFlowTables) => directory.write(`${name}.${what}`, Buffer.from(tables[what]));
  return { flows: await write('flows'), groups: await write('groups'), meters: await write('meters') };
}

/** Taps whose queueing disciplines are Open vSwitch's own: they come with the port's QoS. */
function shapedBySwitch({ ports }: BridgeConfig): string[] {
  const shaped = ports.filter(({ qos }) => qos !== null && qos.type !== 'linux-noop');
  return shaped.flatMap(({ interfaces }) => interfaces.map(({ name }) => name));
}

/** A number of a port means nothing in another switch: the entry is kept with the name of its interface. */
function storedMac({ name, ports }: BridgeConfig, { port, vlan, mac, ageS }: MacEntry): StoredMac[] {
  const interfaces = ports.flatMap((one) => one.interfaces);
  const found = port === 'LOCAL' ? name : interfaces.find(({ ofport }) => ofport === port)?.name;
  return found === undefined ? [] : [{ interface: found, vlan, mac, ageS }];
}
