import { z } from 'zod';

/**
 * An instant or a count in nanoseconds on one host's clock. A JavaScript number holds CLOCK_MONOTONIC for 104
 * days of uptime only, so instants are bigint in memory and decimal strings on the wire. Durations that are
 * known to be short are plain numbers, named `...Ns`, `...Ms`.
 */
export const instantNs = z.codec(z.string().regex(/^-?\d{1,20}$/), z.bigint(), {
  decode: (text) => BigInt(text),
  encode: (value) => value.toString(),
});

/** How long before its instant a cut begins to be made ready on a host; from then on it cannot be recalled. */
export const cutLeadNs = 10_000_000n;
