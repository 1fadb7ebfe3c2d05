import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { onTestFinished } from 'vitest';

import { buildApp, type AppOptions } from '../../src/api/app.ts';
import { problem, type Problem } from '../../src/protocol/resources.ts';
import { FakeService } from './fake-service.ts';
import { labInput } from './samples.ts';

export interface Started {
  readonly app: FastifyInstance;
  readonly service: FakeService;
}

/** The API over a fake service that knows the experiment "lab"; closed when the test ends. */
export async function start(options: Partial<AppOptions> = {}): Promise<Started> {
  const service = new FakeService();
  await service.addExperiment(labInput);
  const app = buildApp({ service, token: null, logger: pino({ level: 'silent' }), ...options });
  onTestFinished(() => app.close());
  await app.ready();
  return { app, service };
}

/** The same, listening on a free port of 127.0.0.1. */
export async function listen(options: Partial<AppOptions> = {}): Promise<Started & { readonly url: string }> {
  const started = await start(options);
  return { ...started, url: await started.app.listen({ host: '127.0.0.1', port: 0 }) };
}

/** The problem details of an answer, checked for their shape and for agreeing with it. */
export function problemOf(answer: {
  statusCode: number;
  headers: Record<string, unknown>;
  body: string;
}): Problem {
  const parsed = problem.parse(JSON.parse(answer.body));
  const type = String(answer.headers['content-type']).split(';')[0];
  if (type !== 'application/problem+json' || parsed.status !== answer.statusCode) {
    throw new Error(`not an answer of problem details: ${JSON.stringify(answer.headers)} ${answer.body}`);
  }
  return parsed;
}
