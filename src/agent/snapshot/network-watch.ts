import { messageOf, StaghornError } from '../../errors/index.ts';
import { openVSwitch, type OvsdbClient } from '../../ovsdb/index.ts';
import { tapIsGone } from '../../native/tap.ts';
import {
  bridgesOf,
  changesBetween,
  SwitchTables,
  undeclaredPorts,
  watchedColumns,
  type ExperimentPorts,
  type SwitchInterfaces,
} from '../../network/switches/watch.ts';

export interface NetworkWatchOptions {
  /** Taps of the experiment's VMs, with the descriptors that we hold of them. */
  readonly taps: readonly { readonly name: string; readonly fd: number }[];
  readonly external: readonly string[];
  /** A connection to the switches' database; the watch owns it. */
  readonly database: OvsdbClient;
  readonly signal: AbortSignal;
}

/** The switch does not tell of every device that goes away under it: the taps are looked at this often. */
const tapPeriodMs = 100;

/**
 * Watches the switches that the experiment's ports are on, from `start` on. What changes there while it watches is
 * told once, as StaghornError 'network-changed'. A database that goes away is a warning only.
 */
export class NetworkWatch {
  readonly #options: NetworkWatchOptions;
  readonly #ports: ExperimentPorts;
  readonly #client: OvsdbClient;
  readonly #tables = new SwitchTables();
  #before: SwitchInterfaces = new Map();
  #bridges: ReadonlySet<string> = new Set();
  #timer: NodeJS.Timeout | undefined;
  #change: StaghornError | undefined;
  #listener: ((change: StaghornError) => void) | undefined;
  #watching = true;
  #closing = false;
  readonly warnings: string[] = [];

  private constructor(options: NetworkWatchOptions, client: OvsdbClient) {
    this.#options = options;
    this.#client = client;
    this.#ports = {
      taps: new Set(options.taps.map(({ name }) => name)),
      external: new Set(options.external),
    };
  }

  /** @throws StaghornError 'host-unfit' if the database does not answer */
  static async start(options: NetworkWatchOptions): Promise<NetworkWatch> {
    const { database, signal } = options;
    const watch = new NetworkWatch(options, database);
    try {
      await watch.#begin();
      return watch;
    } catch (error) {
      await watch.close();
      signal.throwIfAborted();
      throw new StaghornError('host-unfit', `Open vSwitch cannot be watched: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  /** The interfaces of all switches as they were at the start. */
  get interfaces(): SwitchInterfaces {
    return this.#before;
  }

  /** Ports on the experiment's bridges that are neither its VMs' nor declared external. */
  get undeclared(): string[] {
    return undeclaredPorts(this.#before, this.#ports);
  }

  /** Who is to be told of a change; at once if there was one already. */
  onChange(listener: (change: StaghornError) => void): void {
    this.#listener = listener;
    if (this.#change !== undefined) listener(this.#change);
  }

  /** Time goes on: what changes from now on is the user's business. */
  stop(): void {
    this.#watching = false;
    clearInterval(this.#timer);
  }

  async close(): Promise<void> {
    this.stop();
    this.#closing = true;
    await this.#client.close();
  }

  async #begin(): Promise<void> {
    const { signal } = this.#options;
    const update = (tables: Parameters<SwitchTables['apply']>[0]) => {
      this.#tables.apply(tables);
      this.#compare();
    };
    const { initial } = await this.#client.monitor(openVSwitch, watchedColumns, update, { signal });
    this.#tables.apply(initial);
    this.#before = this.#tables.interfaces();
    this.#bridges = bridgesOf(this.#before, this.#ports);
    void this.#client.closed.then((error) => {
      if (this.#closing || !this.#watching) return;
      this.warnings.push(`changes of the network were not watched to the end: ${error?.message ?? 'closed'}`);
    });
    this.#timer = setInterval(() => this.#lookAtTaps(), tapPeriodMs);
  }

  #compare(): void {
    const changes = changesBetween(this.#before, this.#tables.interfaces(), this.#bridges);
    if (changes.size > 0) this.#tell(changes);
  }

  #lookAtTaps(): void {
    const gone = this.#options.taps.filter(({ fd }) => tapIsGone(fd));
    if (gone.length > 0) this.#tell(new Map(gone.map(({ name }) => [name, `${name} is gone`])));
  }

  #tell(changes: ReadonlyMap<string, string>): void {
    if (!this.#watching || this.#change !== undefined) return;
    const problems = [...changes.values()];
    const text = `the network was changed between arm and resumption: ${problems.join('; ')}`;
    const [port] = changes.keys();
    this.#change = new StaghornError('network-changed', text, { context: { port, problems } });
    this.#listener?.(this.#change);
  }
}
