import { z } from 'zod';
import type { RpcContract } from './rpc-contract.ts';

/**
 * Makes zod compile its validators now: it does so at the first use of each schema, which costs milliseconds, and the
 * first call of some methods comes while time stands still.
 */
export function warmUp({ methods, notifications }: RpcContract): void {
  for (const { params, result } of Object.values(methods)) {
    exercise(params);
    exercise(result);
  }
  for (const { params } of Object.values(notifications)) exercise(params);
}

/** What does not fit is as good: validators are compiled before they look at the value. */
function exercise(schema: z.ZodType): void {
  z.safeDecode(schema, {} as z.input<typeof schema>);
  z.safeEncode(schema, {} as z.output<typeof schema>);
}
