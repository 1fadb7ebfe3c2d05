import { z } from 'zod';

const count = z.int().min(0);

export const sentFlow = z.strictObject({
  flow: count,
  frames: count,
  /** Attempts that the device refused; the frame was sent later under the same number. */
  refused: count,
  /** Not sent, because the generator had no processor in time. */
  skipped: count,
});

export const receivedFlow = z.strictObject({
  flow: count,
  frames: count,
  bytes: count,
  /** The highest number that came, and one. */
  expected: count,
  duplicated: count,
  reordered: count,
  /** So late that a copy cannot be told from a late frame. */
  stale: count,
  /** With other tags than the first one had. */
  retagged: count,
  /** Still to be segmented. */
  unsegmented: count,
  tags: z.array(z.string()),
  /** From sending to reception, each on the virtual clock of its endpoint. */
  latencyNs: z.strictObject({ min: z.int(), median: z.int(), p99: z.int(), max: z.int() }),
});

/** What an endpoint has sent and received (test/traffic/report.c). */
export const endpointReport = z.strictObject({
  name: z.string(),
  running: z.boolean(),
  virtualNs: z.int(),
  /** Good frames for another address: flooded by a switch. */
  stray: count,
  /** Made by no endpoint. */
  foreign: count,
  corrupted: count,
  /** Sent with fewer than 60 bytes, and filled up on the way. */
  padded: count,
  sent: z.array(sentFlow),
  received: z.array(receivedFlow),
});

export type EndpointReport = z.infer<typeof endpointReport>;
export type ReceivedFlow = z.infer<typeof receivedFlow>;

export const endpointHello = z.strictObject({ pid: z.int(), queueFds: z.array(z.int()) });

/** Where an endpoint's process has its tap open: what `duplicateDescriptor` needs. */
export type EndpointHello = z.infer<typeof endpointHello>;
