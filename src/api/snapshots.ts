import { z } from 'zod';

import { restoreInput, snapshot, snapshotEdit, snapshotInput, storedFrame } from '../protocol/resources.ts';
import { preferredType } from './accept.ts';
import { cutShort } from './cut-short.ts';
import { framesToPcapng, pcapngMediaType } from './frames-pcapng.ts';
import { experimentParams, snapshotParams, snapshotsQuery } from './parameters.ts';
import { json, operationStarted, problems, sendOperation } from './responses.ts';
import type { RouteContext, Router } from './routes.ts';

const tags = ['snapshots'];
const common = ['unauthorized', 'not-found'] as const;
const withBody = ['invalid-input', 'body-too-large', 'unsupported-media-type'] as const;

export function snapshotRoutes(app: Router, context: RouteContext): void {
  createRoute(app, context);
  listRoutes(app, context);
  itemRoutes(app, context);
  restoreRoutes(app, context);
  frameRoutes(app, context);
}

function createRoute(app: Router, { service }: RouteContext): void {
  app.post(
    '/v1/experiments/:name/snapshots',
    {
      schema: {
        summary: 'Take a snapshot',
        description: 'An empty body will do. The result of the operation is the snapshot.',
        operationId: 'createSnapshot',
        tags,
        params: experimentParams,
        body: snapshotInput,
        response: { ...operationStarted, ...problems(...common, ...withBody, 'conflict') },
      },
    },
    async (request, reply) => sendOperation(reply, service.createSnapshot(request.params.name, request.body)),
  );
}

function listRoutes(app: Router, { service }: RouteContext): void {
  app.get(
    '/v1/experiments/:name/snapshots',
    {
      schema: {
        summary: 'List the snapshots of an experiment',
        operationId: 'listSnapshotsOfExperiment',
        tags,
        params: experimentParams,
        response: { 200: json('Its snapshots', z.array(snapshot)), ...problems(...common) },
      },
    },
    async (request) => {
      // Snapshots outlive the removal of their experiment: only where there is neither is it a 404.
      const found = service.listSnapshots({ experiment: request.params.name });
      if (found.length === 0) service.getExperiment(request.params.name);
      return found;
    },
  );
  app.get(
    '/v1/snapshots',
    {
      schema: {
        summary: 'List and search snapshots',
        operationId: 'listSnapshots',
        tags,
        querystring: snapshotsQuery,
        response: { 200: json('Snapshots', z.array(snapshot)), ...problems('unauthorized', 'invalid-input') },
      },
    },
    async (request) => service.listSnapshots(request.query),
  );
}

function itemRoutes(app: Router, { service }: RouteContext): void {
  app.get(
    '/v1/snapshots/:id',
    {
      schema: {
        summary: 'Show a snapshot',
        operationId: 'getSnapshot',
        tags,
        params: snapshotParams,
        response: { 200: json('The snapshot', snapshot), ...problems(...common) },
      },
    },
    async (request) => service.getSnapshot(request.params.id),
  );
  app.patch(
    '/v1/snapshots/:id',
    {
      schema: {
        summary: 'Change name, description or labels of a snapshot',
        operationId: 'editSnapshot',
        tags,
        params: snapshotParams,
        body: snapshotEdit,
        response: { 200: json('The snapshot', snapshot), ...problems(...common, ...withBody, 'conflict') },
      },
    },
    async (request) => service.editSnapshot(request.params.id, request.body),
  );
  app.delete(
    '/v1/snapshots/:id',
    {
      schema: {
        summary: 'Delete a snapshot on all hosts',
        description:
          'Files that other snapshots read stay, out of sight, until the last of these is deleted.',
        operationId: 'deleteSnapshot',
        tags,
        params: snapshotParams,
        response: { ...operationStarted, ...problems(...common, 'conflict') },
      },
    },
    async (request, reply) => sendOperation(reply, service.deleteSnapshot(request.params.id)),
  );
}

function restoreRoutes(app: Router, { service }: RouteContext): void {
  app.post(
    '/v1/snapshots/:id/restore',
    {
      schema: {
        summary: 'Restore a snapshot',
        description:
          'Brings its VMs back as they were, with the frames in flight. VMs that still run are destroyed if "replace" is true, and a conflict if not. An empty body will do.',
        operationId: 'restoreSnapshot',
        tags,
        params: snapshotParams,
        body: restoreInput,
        response: {
          ...operationStarted,
          ...problems(...common, ...withBody, 'conflict', 'snapshot-unfit', 'snapshot-damaged'),
        },
      },
    },
    async (request, reply) => sendOperation(reply, service.restoreSnapshot(request.params.id, request.body)),
  );
  app.post(
    '/v1/snapshots/:id/verify',
    {
      schema: {
        summary: 'Recompute the checksums of a snapshot, and load its device states',
        description:
          'Each device state is loaded into a paused QEMU that has neither disks nor network to reach, and is ended again.',
        operationId: 'verifySnapshot',
        tags,
        params: snapshotParams,
        response: { ...operationStarted, ...problems(...common, 'conflict') },
      },
    },
    async (request, reply) => sendOperation(reply, service.verifySnapshot(request.params.id)),
  );
}

function frameRoutes(app: Router, { service, closing }: RouteContext): void {
  app.get(
    '/v1/snapshots/:id/frames',
    {
      schema: {
        summary: 'Read the frames in flight of a snapshot',
        description: 'As JSON, or as a capture file for Wireshark by `Accept: application/x-pcapng`.',
        operationId: 'getFrames',
        tags,
        params: snapshotParams,
        response: {
          200: {
            description: 'The frames',
            content: {
              'application/json': { schema: z.array(storedFrame) },
              [pcapngMediaType]: { schema: z.instanceof(Buffer).meta({ type: 'string', format: 'binary' }) },
            },
          },
          ...problems(...common, 'not-acceptable', 'host-unreachable', 'snapshot-damaged'),
        },
      },
    },
    async (request, reply) => {
      const type = preferredType(request.headers.accept, ['application/json', pcapngMediaType]);
      void reply.header('vary', 'accept');
      const found = service.getSnapshot(request.params.id);
      const frames = await service.readFrames(found.id, cutShort(reply, closing));
      if (type === 'application/json') return reply.send(frames);
      void reply.header('content-disposition', `attachment; filename="${found.id}.pcapng"`);
      return reply.type(type).send(framesToPcapng(found, frames));
    },
  );
}
