import type { GuestReport, GuestStream } from './report.ts';

/** A stream whose sender sent something twice, or took something for lost. */
export interface DisturbedStream {
  readonly from: string;
  /** The receiver's number. */
  readonly to: number;
  readonly retransmissions: number;
  /** The highest that a report saw. */
  readonly backoff: number;
  readonly lost: number;
  readonly rtoBeforeUs: number;
  readonly rtoAfterUs: number;
}

const quiet: Omit<GuestStream, 'to'> = { rtoUs: 0, retransmissions: 0, retransmits: 0, backoff: 0, lost: 0 };

function isDisturbed({ retransmissions, backoff, lost }: DisturbedStream): boolean {
  return retransmissions + backoff + lost > 0;
}

/** Of one guest: what changed about its streams from the report before the moment to the last one inside. */
export function disturbedStreams(first: GuestReport, inside: readonly GuestReport[]): DisturbedStream[] {
  const last = inside.at(-1);
  if (last === undefined) return [];
  const most = (to: number, key: 'backoff' | 'lost'): number =>
    Math.max(
      ...inside.flatMap(({ streams }) => streams.filter((one) => one.to === to).map((one) => one[key])),
    );
  return last.streams
    .map((after): DisturbedStream => {
      const before = first.streams.find(({ to }) => to === after.to) ?? quiet;
      return {
        from: last.id,
        to: after.to,
        retransmissions: after.retransmissions - before.retransmissions,
        backoff: most(after.to, 'backoff'),
        lost: most(after.to, 'lost'),
        rtoBeforeUs: before.rtoUs,
        rtoAfterUs: after.rtoUs,
      };
    })
    .filter(isDisturbed);
}
