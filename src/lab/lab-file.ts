import { readFile } from 'node:fs/promises';
import { LineCounter, parseDocument, type Document } from 'yaml';
import type { z } from 'zod';
import { StaghornError, messageOf } from '../errors/index.ts';
import { labSchema } from './schema-checks.ts';
import type { LabFile } from './schema.ts';

function joined(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, key) =>
      typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`,
    '',
  );
}

/** The offset of the node at a path, or of the closest one above it that is really in the file. */
function offsetOf(document: Document, path: readonly PropertyKey[]): number {
  for (let length = path.length; length >= 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    const range = typeof node === 'object' && node !== null && 'range' in node ? node.range : undefined;
    if (Array.isArray(range) && typeof range[0] === 'number') return range[0];
  }
  return 0;
}

/** An unknown key is reported where it stands, each on its own. */
function expand(issue: z.core.$ZodIssue): { path: PropertyKey[]; message: string }[] {
  if (issue.code !== 'unrecognized_keys') return [{ path: issue.path, message: issue.message }];
  return issue.keys.map((key) => ({ path: [...issue.path, key], message: 'there is no such key' }));
}

function refuse(source: string, problems: string[]): StaghornError {
  const count = problems.length === 1 ? 'a problem' : `${problems.length} problems`;
  const message = `${source} has ${count}:\n${problems.map((problem) => `  ${problem}`).join('\n')}`;
  return new StaghornError('invalid-input', message, { context: { problems } });
}

/**
 * The text of a lab file, checked, with defaults filled in.
 * @throws StaghornError 'invalid-input' with every problem at once, each with its path, line and column
 */
export function parseLabFile(text: string, source = 'the lab file'): LabFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${line}:${col}`;
  };
  if (document.errors.length > 0)
    throw refuse(
      source,
      document.errors.map((error) => `${at(error.pos[0])} ${error.message}`),
    );
  const result = labSchema.safeParse(document.toJS({ maxAliasCount: 100 }));
  if (result.success) return result.data;
  const problems = result.error.issues
    .flatMap(expand)
    .map(({ path, message }) => ({ offset: offsetOf(document, path), path: joined(path), message }))
    .sort((a, b) => a.offset - b.offset)
    .map(({ offset, path, message }) => `${at(offset)} ${path === '' ? '' : `${path}: `}${message}`);
  throw refuse(source, problems);
}

/** @throws StaghornError 'not-found', 'invalid-input' */
export async function readLabFile(path: string): Promise<LabFile> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    throw new StaghornError('not-found', `cannot read the lab file: ${messageOf(error)}`, { cause: error });
  }
  return parseLabFile(text, path);
}
