import { z } from 'zod';

const count = z.int().nonnegative();

/** A stream to a peer, out of TCP_INFO of its sender, as `ss -ti` prints it. A count that is 0 is not written. */
const streamSchema = z.strictObject({
  /** The peer's number. */
  to: z.int(),
  /** The retransmission timeout at present. */
  rtoUs: count,
  retransmissions: count.default(0),
  /** Timeouts in a row that are not over yet, and how often the timeout was doubled for them. */
  retransmits: count.default(0),
  backoff: count.default(0),
  /** Segments that the sender takes for lost at present. */
  lost: count.default(0),
});
export type GuestStream = z.infer<typeof streamSchema>;

/** A line that a guest's probe writes every second; all counts are since its boot (src/lab/guest/probe.c). */
export const reportSchema = z.strictObject({
  t: z.literal('report'),
  id: z.string(),
  ready: z.boolean(),
  /** The guest's CLOCK_MONOTONIC. */
  uptimeNs: count,
  sent: count,
  received: count,
  /** Not in by the time that 32 later numbers of the same sender were. */
  lost: count,
  duplicated: count,
  reordered: count,
  corrupted: count,
  sendErrors: count,
  tcpBytes: count,
  tcpMismatches: count,
  tcpRetransmissions: count,
  /** Of the retransmission timer (TCPTimeouts in /proc/net/netstat). */
  tcpTimeouts: count,
  tcpFailures: count,
  /** Between two wake-ups of the probe, by CLOCK_MONOTONIC: since it was ready, and since the last report. */
  largestGapNs: count,
  gapNs: count,
  /** The largest step of CLOCK_REALTIME or CLOCK_BOOTTIME against CLOCK_MONOTONIC, since it was ready. */
  clockJumpNs: count,
  /** The largest step of the TSC against CLOCK_MONOTONIC, since it was ready. */
  tscJumpNs: count,
  peers: count,
  peersReached: count,
  streams: z.array(streamSchema),
});
export type GuestReport = z.infer<typeof reportSchema>;

const markSchema = z.strictObject({ t: z.enum(['booted', 'ready']), id: z.string() });
/** Of one disk, every second: what was written and fsynced, and how often something else was read back. */
const diskSchema = z.strictObject({
  t: z.literal('disk'),
  id: z.string(),
  disk: z.string(),
  count,
  strange: count,
});
const lineSchema = z.discriminatedUnion('t', [reportSchema, markSchema, diskSchema]);
export type GuestLine = z.infer<typeof lineSchema>;

function parseLine(line: string): GuestLine | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    const parsed = lineSchema.safeParse(JSON.parse(line));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

/**
 * What a probe wrote, out of a piece of a serial log. What is no line of the probe (kernel messages, a line that is
 * cut off at either end, as happens where a restored QEMU begins to append) is left out.
 */
export function parseSerial(text: string): GuestLine[] {
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => parseLine(line.trimEnd()))
    .filter((line) => line !== undefined);
}

export function reportsIn(text: string): GuestReport[] {
  return parseSerial(text).filter((line) => line.t === 'report');
}
