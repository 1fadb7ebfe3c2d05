import { z } from 'zod';

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

/** A file beside the manifest, checked as a whole. */
export const storedFile = z.strictObject({ file: z.string(), bytes: z.int().nonnegative(), sha256 });
export type StoredFile = z.infer<typeof storedFile>;
