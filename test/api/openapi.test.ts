import { describe, expect, it } from 'vitest';

import { start } from './start.ts';

interface Described {
  operationId?: string;
  summary?: string;
  tags?: string[];
  security?: unknown[];
  parameters?: { name: string; in: string }[];
  requestBody?: unknown;
  responses: Record<string, { description?: string; content?: Record<string, unknown>; headers?: unknown }>;
}
interface Document {
  openapi: string;
  security?: unknown[];
  paths: Record<string, Record<string, Described>>;
  components: { schemas: Record<string, unknown>; securitySchemes: unknown };
}

async function documentOf(token: string | null = 'secret'): Promise<Document> {
  const { app } = await start({ token });
  return (await app.inject({ url: '/v1/openapi.json' })).json<Document>();
}

const routes = [
  'DELETE /v1/experiments/{name}/rolling',
  'GET /v1/experiments/{name}/rolling',
  'PUT /v1/experiments/{name}/rolling',
  'GET /v1/rolling',
  'PATCH /v1/snapshots/{id}',
  'POST /v1/experiments/{name}/prune',
  'GET /v1/snapshots/{id}/export',
  'POST /v1/snapshots/import',
  'GET /v1/health',
  'POST /v1/experiments',
  'GET /v1/experiments',
  'GET /v1/experiments/{name}',
  'DELETE /v1/experiments/{name}',
  'GET /v1/experiments/{name}/vms',
  'GET /v1/experiments/{name}/ports',
  'POST /v1/experiments/{name}/pause',
  'POST /v1/experiments/{name}/resume',
  'POST /v1/experiments/{name}/snapshots',
  'GET /v1/experiments/{name}/snapshots',
  'GET /v1/snapshots',
  'GET /v1/snapshots/{id}',
  'DELETE /v1/snapshots/{id}',
  'POST /v1/snapshots/{id}/restore',
  'POST /v1/snapshots/{id}/forks',
  'POST /v1/snapshots/{id}/verify',
  'GET /v1/snapshots/{id}/frames',
  'GET /v1/operations',
  'GET /v1/operations/{id}',
  'DELETE /v1/operations/{id}',
  'GET /v1/operations/{id}/events',
  'GET /metrics',
  'GET /problems/{code}',
];

function operationsOf(document: Document): [string, Described][] {
  return Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, described]): [string, Described] => [
      `${method.toUpperCase()} ${path}`,
      described,
    ]),
  );
}

describe('the OpenAPI document', () => {
  it('is of version 3.1 and holds every route and no other', async () => {
    const document = await documentOf();
    expect(document.openapi).toMatch(/^3\.1\./);
    expect(
      operationsOf(document)
        .map(([name]) => name)
        .sort(),
    ).toEqual([...routes].sort());
  });

  it('gives each operation a unique id, a summary, a tag, described answers and problem details', async () => {
    const operations = operationsOf(await documentOf());
    const ids = operations.map(([, { operationId }]) => operationId);
    expect(new Set(ids).size).toBe(routes.length);
    for (const [name, described] of operations) {
      expect([name, described.summary, described.tags]).toEqual([
        name,
        expect.any(String),
        [expect.any(String)],
      ]);
      for (const [status, answer] of Object.entries(described.responses)) {
        expect([name, status, answer.description]).toEqual([name, status, expect.stringMatching(/./)]);
        if (Number(status) < 400) continue;
        expect(answer.content).toEqual({
          'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
        });
      }
      expect(Object.keys(described.responses)).toContain('500');
    }
  });

  it('declares each parameter of a path', async () => {
    for (const [name, { parameters = [] }] of operationsOf(await documentOf())) {
      const inPath = parameters
        .filter((parameter) => parameter.in === 'path')
        .map((parameter) => parameter.name);
      expect([name, inPath]).toEqual([
        name,
        [...name.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter),
      ]);
    }
  });

  it('refers only to schemas that it holds, and holds none in vain', async () => {
    const document = await documentOf();
    const text = JSON.stringify(document);
    const referred = new Set(
      [...text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name),
    );
    expect([...referred].sort()).toEqual(Object.keys(document.components.schemas).sort());
    expect(text.match(/"\$ref":"(?!#\/components\/schemas\/)/)).toBeNull();
  });

  it('asks for the token where the server does, and for none without one', async () => {
    const document = await documentOf();
    expect(document.security).toEqual([{ bearer: [] }]);
    const open = operationsOf(document).filter(([, { security }]) => security?.length === 0);
    expect(open.map(([name]) => name).sort()).toEqual(['GET /problems/{code}', 'GET /v1/health']);
    expect((await documentOf(null)).security).toBeUndefined();
  });

  it('says that bodies of which all fields have defaults may be left out, and which media types frames come in', async () => {
    const { paths } = await documentOf();
    const take = paths['/v1/experiments/{name}/snapshots']?.['post'];
    expect(take?.requestBody).toMatchObject({
      content: { 'application/json': { schema: { $ref: '#/components/schemas/SnapshotCreateInput' } } },
    });
    expect(take?.requestBody).not.toMatchObject({ required: true });
    expect(paths['/v1/experiments']?.['post']?.requestBody).toMatchObject({ required: true });
    const frames = paths['/v1/snapshots/{id}/frames']?.['get']?.responses['200'];
    expect(Object.keys(frames?.content ?? {}).sort()).toEqual(['application/json', 'application/x-pcapng']);
    expect(take?.responses['202']?.headers).toHaveProperty('Location');
  });
});
