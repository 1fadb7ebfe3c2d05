import type { FastifySchemaCompiler } from 'fastify';
import type { z } from 'zod';

import { StaghornError } from '../errors/index.ts';

/** Checks what a request brings against a route's zod schemas and reports every problem at once with its path. */
export const validatorCompiler: FastifySchemaCompiler<z.ZodType> = ({ schema, httpPart }) => {
  const part = httpPart === 'querystring' ? 'query' : (httpPart ?? 'body');
  return (data: unknown) => {
    const result = schema.safeParse(data);
    if (result.success) return { value: result.data };
    const problems = result.error.issues.map((issue) => `${pathOf(part, issue.path)}: ${issue.message}`);
    return { error: new StaghornError('invalid-input', summary(part, problems), { context: { problems } }) };
  };
};

function summary(part: string, problems: readonly string[]): string {
  const [first = ''] = problems;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  return `The ${part} is not valid: ${first}${more}`;
}

/** `body.hosts[0].name` */
function pathOf(part: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) => (typeof key === 'number' ? `${text}[${key}]` : `${text}.${String(key)}`),
    part,
  );
}
