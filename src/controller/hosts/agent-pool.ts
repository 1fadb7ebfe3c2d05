import { allOf } from '../../errors/index.ts';
import type { Logger } from '../../protocol/logger.ts';
import type { HostSpec, Transport } from '../../protocol/resources.ts';
import { systemTime, type Time } from '../../protocol/time.ts';
import { AgentLink, type AgentConnectors, type LinkTools } from './agent-link.ts';
import { Turns } from './turns.ts';

/** Each is a login and perhaps a deployment: more at once would only wait for each other. */
const connectingMax = 64;

/** Keeps the connections to agents: one a host and login, opened when first needed, opened anew when it broke. */
export class AgentPool {
  readonly #connectors: AgentConnectors;
  readonly #tools: LinkTools;
  readonly #links = new Map<string, Promise<AgentLink>>();
  readonly #turns = new Turns(connectingMax);

  constructor(connectors: AgentConnectors, log: Logger, time: Time = systemTime) {
    this.#connectors = connectors;
    this.#tools = { log, time };
  }

  get time(): Time {
    return this.#tools.time;
  }

  async connect(spec: HostSpec, transport: Transport = 'ssh'): Promise<AgentLink> {
    const { vms: _vms, external: _external, ...login } = spec;
    const key = JSON.stringify({ ...login, transport });
    const known = this.#links.get(key);
    if (known !== undefined) {
      const link = await known;
      if (link.isOpen) return link;
    }
    // Another caller may have begun to connect while the old link was looked at.
    const begun = this.#links.get(key);
    if (begun !== undefined && begun !== known) return begun;
    const opening = this.#turns.take(() => AgentLink.open(spec, this.#connectors[transport], this.#tools));
    this.#links.set(key, opening);
    opening.catch(() => this.#links.delete(key));
    return opening;
  }

  connectAll(specs: readonly HostSpec[], transport?: Transport): Promise<AgentLink[]> {
    return allOf(specs.map((spec) => this.connect(spec, transport)));
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#links.values()].map(async (link) => (await link).close()));
    this.#links.clear();
  }
}
