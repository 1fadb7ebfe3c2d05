import { OvsdbError } from './errors.ts';
import type { OvsdbFailure } from './errors.ts';
import { isJsonObject } from './json.ts';
import type { JsonValue } from './json.ts';

/** Reads an <error> (RFC 7047, section 3.1), or whatever a server put in its place. */
export function failureOf(error: JsonValue, operationIndex?: number): OvsdbFailure {
  if (!isJsonObject(error) || typeof error['error'] !== 'string') {
    const text = typeof error === 'string' ? error : JSON.stringify(error);
    return { error: text, details: undefined, operationIndex };
  }
  const details = error['details'];
  return {
    error: error['error'],
    details: typeof details === 'string' ? details : undefined,
    operationIndex,
  };
}

/**
 * The results of a transaction, if all of its operations succeeded. A failed one stands in the array as an <error>,
 * those behind it are null, and an error of the commit itself is one element more (RFC 7047, section 4.1.3).
 * @throws OvsdbError 'operation-failed', 'protocol'.
 */
export function checkResults(result: JsonValue, operations: readonly { readonly op: string }[]): JsonValue[] {
  if (!Array.isArray(result)) throw new OvsdbError('protocol', 'transact: the reply is not an array');
  for (const [index, item] of result.entries()) {
    if (!isJsonObject(item) || item['error'] === undefined) continue;
    const failure = failureOf(item, index);
    const where = operations[index] === undefined ? 'commit' : `operation ${index} (${operations[index].op})`;
    const details = failure.details === undefined ? '' : `: ${failure.details}`;
    throw new OvsdbError('operation-failed', `${where}: ${failure.error}${details}`, { failure });
  }
  if (result.length !== operations.length || !result.every(isJsonObject)) {
    throw new OvsdbError('protocol', `transact: ${operations.length} operations, ${result.length} results`);
  }
  return result;
}
