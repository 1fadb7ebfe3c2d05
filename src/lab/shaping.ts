import { z } from 'zod';

/**
 * What a link does to frames, in one direction: the words of the lab file, and what tc(8) is told. A rate alone is a
 * token bucket; with delay or loss, netem does all of it.
 */
const rate = z.string().regex(/^\d+(\.\d+)?[kmg]?bit$/, 'a rate of tc(8), such as "20mbit"');
const byteCount = z.string().regex(/^\d+k?b$/, 'a size of tc(8), such as "4kb"');
const duration = z.string().regex(/^\d+(\.\d+)?[mu]?s$/, 'a time of tc(8), such as "20ms"');
const percentage = z.string().regex(/^(100|\d{1,2}(\.\d{1,4})?)%$/, 'a percentage of tc(8), such as "0.5%"');

export const shapeSchema = z
  .strictObject({
    rate: rate.optional(),
    burst: byteCount.optional(),
    delay: duration.optional(),
    jitter: duration.optional(),
    loss: percentage.optional(),
    /** Frames that may wait; what comes on top is dropped. */
    limit: z.int().min(1).max(1_000_000).default(1000),
  })
  .superRefine((shape, context) => {
    const report = (key: string, message: string): void =>
      context.addIssue({ code: 'custom', path: [key], message });
    if (shape.rate === undefined && shape.delay === undefined && shape.loss === undefined)
      context.addIssue('a shape needs a rate, a delay or a loss');
    if (shape.jitter !== undefined && shape.delay === undefined)
      report('jitter', 'jitter is of a delay, and there is none');
    if (shape.burst !== undefined && (shape.rate === undefined || needsNetem(shape)))
      report('burst', 'only a rate without delay and loss has a burst');
  });
export type Shape = z.infer<typeof shapeSchema>;

/** The queueing disciplines and classifiers of the kernel that a lab may need, by tc's names. */
export type KernelPart = 'htb' | 'netem' | 'tbf' | 'u32';

/** Ethernet's header with a VLAN tag, which a qdisc counts with the frame. */
const HEADER_BYTES = 18;
/** Under a token bucket's burst no frame may be longer than it, or it is dropped (tc-tbf(8)). */
const LEAST_BURST_BYTES = 4096;

function needsNetem({ delay, loss }: Pick<Shape, 'delay' | 'loss'>): boolean {
  return delay !== undefined || loss !== undefined;
}

export function disciplineOf(shape: Shape): 'netem' | 'tbf' {
  return needsNetem(shape) ? 'netem' : 'tbf';
}

/** The bytes that a size of tc(8) stands for. */
export function bytesOf(text: string): number {
  return parseInt(text, 10) * (text.endsWith('kb') ? 1024 : 1);
}

/**
 * netem keeps frames in order only if it has a rate (netem_enqueue in net/sched/sch_netem.c): a link does not
 * overtake itself, so one that only jitters gets a rate that it never notices.
 */
function netemArguments({ rate: given, delay = '0ms', jitter, loss, limit }: Shape): string[] {
  const throughput = given ?? (jitter === undefined ? undefined : '100gbit');
  return [
    ...['netem', 'limit', String(limit), 'delay', delay],
    ...(jitter === undefined ? [] : [jitter]),
    ...(loss === undefined ? [] : ['loss', 'random', loss]),
    ...(throughput === undefined ? [] : ['rate', throughput]),
  ];
}

/** The words for `tc qdisc replace dev DEVICE root …`; a token bucket counts its limit in bytes of full frames. */
export function qdiscArguments(shape: Shape, mtuBytes: number): string[] {
  if (needsNetem(shape)) return netemArguments(shape);
  const frameBytes = mtuBytes + HEADER_BYTES;
  const burstBytes =
    shape.burst === undefined ? Math.max(LEAST_BURST_BYTES, frameBytes) : bytesOf(shape.burst);
  const limitBytes = shape.limit * frameBytes;
  return ['tbf', 'rate', shape.rate!, 'burst', `${burstBytes}b`, 'limit', `${limitBytes}b`];
}

/** In a few words: "8mbit, 20ms ± 2ms, 1% lost". */
export function describeShape({ rate: given, delay, jitter, loss }: Shape): string {
  const delays = jitter === undefined ? delay : `${delay} ± ${jitter}`;
  return [given, delays, loss === undefined ? undefined : `${loss} lost`]
    .filter((part) => part !== undefined)
    .join(', ');
}
