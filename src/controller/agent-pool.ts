import type { Logger } from '../protocol/logger.ts';
import type { HostSpec } from '../protocol/resources.ts';
import type { BundleFile } from '../transport/index.ts';
import { AgentLink } from './agent-link.ts';

/** Keeps the connections to agents: one a host and login, opened when first needed, opened anew when it broke. */
export class AgentPool {
  readonly #bundle: readonly BundleFile[];
  readonly #log: Logger;
  readonly #links = new Map<string, Promise<AgentLink>>();

  constructor(bundle: readonly BundleFile[], log: Logger) {
    this.#bundle = bundle;
    this.#log = log;
  }

  async connect(spec: HostSpec): Promise<AgentLink> {
    const { vms: _vms, external: _external, ...login } = spec;
    const key = JSON.stringify(login);
    const known = this.#links.get(key);
    if (known !== undefined) {
      const link = await known;
      if (link.isOpen) return link;
    }
    // Another caller may have begun to connect while the old link was looked at.
    const begun = this.#links.get(key);
    if (begun !== undefined && begun !== known) return begun;
    const opening = AgentLink.open(spec, this.#bundle, this.#log);
    this.#links.set(key, opening);
    opening.catch(() => this.#links.delete(key));
    return opening;
  }

  async connectAll(specs: readonly HostSpec[]): Promise<AgentLink[]> {
    const results = await Promise.allSettled(specs.map((spec) => this.connect(spec)));
    const failure = results.find((result) => result.status === 'rejected');
    if (failure !== undefined) throw failure.reason;
    return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.#links.values()].map(async (link) => (await link).close()));
    this.#links.clear();
  }
}
