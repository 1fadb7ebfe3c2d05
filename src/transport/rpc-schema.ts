import { z } from 'zod';
import { StaghornError } from '../errors/index.ts';

/** What is being checked, as an error names it: "params of snapshot.arm". */
export type WireSubject = `${'params' | 'result'} of ${string}`;

/**
 * From memory to the wire.
 * @throws StaghornError 'protocol-violation' that names the subject and every path that does not fit
 */
export function encodeWire(schema: z.ZodType, value: unknown, subject: WireSubject): unknown {
  const encoded = z.safeEncode(schema, value);
  if (!encoded.success) throw violation(`cannot send ${subject}`, encoded.error);
  return encoded.data;
}

/**
 * From the wire to memory. JSON-RPC has no undefined: peers send null for it, so null is tried as undefined where
 * the schema has no use for null.
 * @throws StaghornError 'protocol-violation' that names the subject and every path that does not fit
 */
export function decodeWire(schema: z.ZodType, wire: unknown, subject: WireSubject): unknown {
  const decoded = z.safeDecode(schema, wire);
  if (decoded.success) return decoded.data;
  if (wire === null || wire === undefined) {
    const absent = z.safeDecode(schema, undefined);
    if (absent.success) return absent.data;
  }
  throw violation(`received ${subject}`, decoded.error);
}

function violation(what: string, error: z.core.$ZodError): StaghornError {
  const problems = error.issues.map(
    ({ path, message }) => `${z.core.toDotPath(path) || '(root)'}: ${message}`,
  );
  return new StaghornError('protocol-violation', `${what} that do not fit: ${problems.join('; ')}`, {
    context: { problems },
  });
}
