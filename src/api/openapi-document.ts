import type { SwaggerTransformObject } from '@fastify/swagger';

type Document = ReturnType<SwaggerTransformObject>;

/** The parts of an OpenAPI 3.1 document that are worked on here. */
interface Described {
  paths: Record<string, Record<string, { responses?: Record<string, Answer> }>>;
  components: { schemas: Record<string, unknown> };
}
interface Answer {
  headers?: Record<string, unknown>;
}

/** What the generator leaves to do: only schemas that something refers to, and the Location of a 201 or 202. */
export function finishDocument(document: Document): Document {
  const finished = structuredClone(document) as unknown as Described;
  addLocations(finished.paths);
  finished.components.schemas = onlyReferred(finished);
  return finished as unknown as Document;
}

function addLocations(paths: Described['paths']): void {
  const operations = Object.values(paths).flatMap((path) => Object.values(path));
  for (const { responses = {} } of operations) {
    for (const answer of [responses['201'], responses['202']]) {
      if (answer !== undefined) answer.headers = { Location: { schema: { type: 'string' }, description: 'Where it is' } };
    }
  }
}

function onlyReferred({ paths, components }: Described): Record<string, unknown> {
  let kept = Object.entries(components.schemas);
  for (let before = -1; before !== kept.length; ) {
    before = kept.length;
    const text = JSON.stringify([paths, Object.fromEntries(kept)]);
    kept = kept.filter(([name]) => text.includes(`"#/components/schemas/${name}"`));
  }
  return Object.fromEntries(kept);
}
