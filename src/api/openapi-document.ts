import type { SwaggerTransformObject } from '@fastify/swagger';

type Document = ReturnType<SwaggerTransformObject>;

/** The parts of an OpenAPI 3.1 document that are worked on here. */
interface Described {
  paths: Record<string, Record<string, Route>>;
  components: { schemas: Record<string, { required?: string[] }> };
}
interface Route {
  requestBody?: { required?: boolean; content: Record<string, { schema: { $ref?: string } }> };
  responses?: Record<string, Answer>;
}
interface Answer {
  headers?: Record<string, unknown>;
}

/**
 * What the generator leaves to do: only schemas that something refers to, the Location of a 201 or 202, and that
 * a body may be left out if each of its fields may.
 */
export function finishDocument(document: Document): Document {
  const finished = structuredClone(document) as unknown as Described;
  const routes = Object.values(finished.paths).flatMap((path) => Object.values(path));
  for (const route of routes) {
    addLocations(route);
    freeBody(route, finished.components.schemas);
  }
  finished.components.schemas = onlyReferred(finished);
  return finished;
}

function addLocations({ responses = {} }: Route): void {
  for (const answer of [responses['201'], responses['202']]) {
    if (answer === undefined) continue;
    answer.headers = { Location: { schema: { type: 'string' }, description: 'Where it is' } };
  }
}

function freeBody({ requestBody }: Route, schemas: Described['components']['schemas']): void {
  const name = requestBody?.content['application/json']?.schema.$ref?.split('/').at(-1) ?? '';
  const needed = schemas[name]?.required ?? [];
  if (requestBody !== undefined && needed.length === 0) requestBody.required = false;
}

function onlyReferred({ paths, components }: Described): Described['components']['schemas'] {
  let kept = Object.entries(components.schemas);
  for (let before = -1; before !== kept.length;) {
    before = kept.length;
    const text = JSON.stringify([paths, Object.fromEntries(kept)]);
    kept = kept.filter(([name]) => text.includes(`"#/components/schemas/${name}"`));
  }
  return Object.fromEntries(kept);
}
