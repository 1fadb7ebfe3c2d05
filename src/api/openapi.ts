import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { jsonSchemaTransform, jsonSchemaTransformObject } from 'fastify-type-provider-zod';
import { z } from 'zod';

import { pruneInput, pruneResult } from '../protocol/prune.ts';
import * as resources from '../protocol/resources.ts';
import { rolling, rollingInput } from '../protocol/rolling.ts';
import { finishDocument } from './openapi-document.ts';

/** Schemas that the document names; what goes into a request ends in "Input" there. */
const named = {
  Experiment: resources.experiment,
  ExperimentCreate: resources.experimentInput,
  ExperimentVm: resources.experimentVm,
  ExperimentPort: resources.experimentPort,
  Snapshot: resources.snapshot,
  SnapshotCreate: resources.snapshotInput,
  SnapshotEdit: resources.snapshotEdit,
  SnapshotVm: resources.snapshotVm,
  Prune: pruneInput,
  PruneResult: pruneResult,
  RollingCreate: rollingInput,
  Rolling: rolling,
  Restore: resources.restoreInput,
  RestoreResult: resources.restoreResult,
  VerifyResult: resources.verifyResult,
  StoredFrame: resources.storedFrame,
  Progress: resources.progress,
  Problem: resources.problem,
  Operation: resources.operation,
  OperationEvent: resources.operationEvent,
  Health: resources.health,
};

for (const [id, schema] of Object.entries(named)) z.globalRegistry.add(schema, { id });

/** The page at /docs takes everything from this server, over HTTP as well as HTTPS. */
const pagePolicy = [
  "default-src 'self'",
  "img-src 'self' data:",
  "style-src 'self' 'unsafe-inline'",
  "object-src 'none'",
  "base-uri 'self'",
  "frame-ancestors 'none'",
].join('; ');

export interface DescriptionOptions {
  readonly version: string;
  /** Whether requests need a bearer token. */
  readonly secured: boolean;
}

/** Describes every route that is registered after it: OpenAPI 3.1 made from the zod schemas, and a page at /docs. */
export function describeApi(app: FastifyInstance, { version, secured }: DescriptionOptions): void {
  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Staghorn',
        description:
          'Stops time in an emulated distributed system: pauses many QEMU VMs in one tight window, keeps every Ethernet frame in flight, saves, restores.',
        version,
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: '/' }],
      tags: [
        { name: 'experiments', description: 'Emulated distributed systems: VMs on hosts' },
        { name: 'snapshots', description: 'What was saved of them' },
        { name: 'operations', description: 'Work that takes a while' },
        { name: 'server', description: 'The controller itself' },
      ],
      components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } } },
      ...(secured ? { security: [{ bearer: [] }] } : {}),
    },
    transform: jsonSchemaTransform,
    transformObject: (document) => finishDocument(jsonSchemaTransformObject(document)),
  });
  app.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: pagePolicy,
    // No badge: it would send the document's address to validator.swagger.io.
    uiConfig: {
      validatorUrl: null,
      deepLinking: true,
      displayOperationId: true,
      defaultModelsExpandDepth: 0,
    },
    theme: {
      title: 'Staghorn API',
      css: [{ filename: 'staghorn.css', content: '.swagger-ui .topbar { display: none }' }],
    },
  });
}

export function documentRoute(app: FastifyInstance): void {
  app.get('/v1/openapi.json', { schema: { hide: true } }, async () => app.swagger());
}
