import { z } from 'zod';

import { experiment, experimentInput, experimentPort, experimentVm } from '../protocol/resources.ts';
import { cutShort } from './cut-short.ts';
import { experimentParams, removalQuery } from './parameters.ts';
import { json, operationStarted, problems, sendOperation } from './responses.ts';
import type { RouteContext, Router } from './routes.ts';

const tags = ['experiments'];
const onHosts = ['host-unreachable', 'host-unfit', 'deadline-exceeded'] as const;

export function experimentRoutes(app: Router, context: RouteContext): void {
  collectionRoutes(app, context);
  itemRoutes(app, context);
  insideRoutes(app, context);
  timeRoutes(app, context);
}

function collectionRoutes(app: Router, { service }: RouteContext): void {
  app.post(
    '/v1/experiments',
    {
      schema: {
        summary: 'Add an experiment',
        description: 'Connects to every host, puts an agent there and looks for the VMs. Nothing is changed.',
        operationId: 'addExperiment',
        tags,
        body: experimentInput,
        response: {
          201: json('The experiment', experiment),
          ...problems(
            ...([
              'invalid-input',
              'unauthorized',
              'conflict',
              'body-too-large',
              'unsupported-media-type',
            ] as const),
            ...(['host-key-mismatch', 'authentication-failed', 'privilege-missing', ...onHosts] as const),
          ),
        },
      },
    },
    async (request, reply) => {
      const added = await service.addExperiment(request.body);
      return reply.code(201).header('location', `/v1/experiments/${added.name}`).send(added);
    },
  );
  app.get(
    '/v1/experiments',
    {
      schema: {
        summary: 'List the experiments',
        operationId: 'listExperiments',
        tags,
        response: { 200: json('All experiments', z.array(experiment)), ...problems('unauthorized') },
      },
    },
    async () => service.listExperiments(),
  );
}

function itemRoutes(app: Router, { service }: RouteContext): void {
  app.get(
    '/v1/experiments/:name',
    {
      schema: {
        summary: 'Show an experiment',
        operationId: 'getExperiment',
        tags,
        params: experimentParams,
        response: { 200: json('The experiment', experiment), ...problems('unauthorized', 'not-found') },
      },
    },
    async (request) => service.getExperiment(request.params.name),
  );
  app.delete(
    '/v1/experiments/:name',
    {
      schema: {
        summary: 'Remove an experiment',
        description:
          'Staghorn forgets it. Its VMs run on, unless it is a fork that is to be destroyed. It must have no snapshots any more.',
        operationId: 'removeExperiment',
        tags,
        params: experimentParams,
        querystring: removalQuery,
        response: {
          204: z.undefined().describe('It is removed'),
          ...problems('unauthorized', 'not-found', 'conflict', 'wrong-state', 'invalid-input', ...onHosts),
        },
      },
    },
    async (request, reply) => {
      await service.removeExperiment(request.params.name, request.query);
      return reply.code(204).send();
    },
  );
}

function insideRoutes(app: Router, { service, closing }: RouteContext): void {
  app.get(
    '/v1/experiments/:name/vms',
    {
      schema: {
        summary: 'List the VMs of an experiment',
        description: 'As the agents find them now, with what keeps each from being snapshotted.',
        operationId: 'listVms',
        tags,
        params: experimentParams,
        response: {
          200: json('The VMs on all hosts', z.array(experimentVm)),
          ...problems('unauthorized', 'not-found', ...onHosts),
        },
      },
    },
    async (request, reply) => service.listVms(request.params.name, cutShort(reply, closing)),
  );
  app.get(
    '/v1/experiments/:name/ports',
    {
      schema: {
        summary: 'List the network ports of an experiment',
        description: 'Each tap of a VM with the switch port it is plugged into.',
        operationId: 'listPorts',
        tags,
        params: experimentParams,
        response: {
          200: json('The ports on all hosts', z.array(experimentPort)),
          ...problems('unauthorized', 'not-found', ...onHosts),
        },
      },
    },
    async (request, reply) => service.listPorts(request.params.name, cutShort(reply, closing)),
  );
}

function timeRoutes(app: Router, { service }: RouteContext): void {
  app.post(
    '/v1/experiments/:name/pause',
    {
      schema: {
        summary: 'Stop time in an experiment',
        description: 'Every VM stops within one tight window; frames in flight are held.',
        operationId: 'pauseExperiment',
        tags,
        params: experimentParams,
        response: {
          ...operationStarted,
          ...problems('unauthorized', 'not-found', 'conflict', 'wrong-state'),
        },
      },
    },
    async (request, reply) => sendOperation(reply, service.pauseExperiment(request.params.name)),
  );
  app.post(
    '/v1/experiments/:name/resume',
    {
      schema: {
        summary: 'Let time go on in an experiment',
        operationId: 'resumeExperiment',
        tags,
        params: experimentParams,
        response: {
          ...operationStarted,
          ...problems('unauthorized', 'not-found', 'conflict', 'wrong-state'),
        },
      },
    },
    async (request, reply) => sendOperation(reply, service.resumeExperiment(request.params.name)),
  );
}
