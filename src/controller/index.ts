import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Logger } from '../protocol/logger.ts';
import { BrokerAgents, type BrokerSettings, type BundleFile } from '../transport/index.ts';
import { brokerConnector, sshConnector } from './hosts/agent-link.ts';
import { AgentPool } from './hosts/agent-pool.ts';
import { Catalog } from './catalog/catalog.ts';
import { Controller } from './controller.ts';
import type { StaghornService } from './service.ts';

export interface ControllerOptions {
  /** Where the catalog is kept. */
  readonly stateDir: string;
  readonly logger: Logger;
  /** The site's message broker; without one, experiments have to be reached over SSH. */
  readonly broker?: BrokerSettings | undefined;
}

/** The agent as `npm run build` leaves it: dist/agent-bundle, as far from src/controller as from dist/controller. */
export function agentBundle(): BundleFile[] {
  const directory = fileURLToPath(new URL('../../dist/agent-bundle/', import.meta.url));
  return ['agent.cjs', 'staghorn.node', 'ioctl-native.node'].map((name) => ({
    name,
    path: join(directory, name),
  }));
}

/** Composes the controller from its parts. */
export function createController({ stateDir, logger, broker }: ControllerOptions): {
  service: StaghornService;
  close(): Promise<void>;
} {
  const catalog = Catalog.open(join(stateDir, 'catalog.sqlite'));
  markInterrupted(catalog, logger);
  const brokerAgents = broker === undefined ? null : new BrokerAgents(broker);
  const connectors = { ssh: sshConnector(agentBundle()), amqp: brokerConnector(brokerAgents) };
  const pool = new AgentPool(connectors, logger);
  const controller = new Controller(catalog, pool, logger);
  return {
    service: controller,
    close: async () => {
      await controller.close();
      await pool.close();
      await brokerAgents?.close();
      catalog.close();
    },
  };
}

/** Snapshots that were under way when the controller ended: their agents gave them up. */
export function markInterrupted(catalog: Catalog, logger: Logger): void {
  for (const { snapshot, manifests } of catalog.listSnapshots()) {
    if (snapshot.state !== 'storing') continue;
    catalog.putSnapshot({ snapshot: { ...snapshot, state: 'failed' }, manifests });
    logger.warn({ snapshot: snapshot.id }, 'this snapshot was under way when the controller ended');
  }
}
