import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../errors/index.ts';
import {
  judge,
  readReports,
  serialOffset,
  type GuestReport,
  type Judgement,
  type Lab,
  type SerialRange,
} from '../lab/index.ts';

const pollMs = 100;
const reportBoundMs = 60_000;

/** How far each guest's serial log had come, by VM. */
export type LogOffsets = ReadonlyMap<string, number>;

/** The guests of a lab, seen through what their probes write. */
export class Guests {
  readonly #lab: Lab;

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  async offsets(): Promise<LogOffsets> {
    return new Map(
      await Promise.all(
        this.#lab.vms.map(async ({ name, serialLog }) => [name, await serialOffset(serialLog)] as const),
      ),
    );
  }

  /** Waits until every guest has written this many reports after the offsets. */
  async waitForReports(since: LogOffsets, count: number): Promise<void> {
    const startedAtMs = performance.now();
    for (const { name, serialLog } of this.#lab.vms) {
      const range = [{ from: since.get(name)! }];
      while ((await readReports(serialLog, range)).length < count) {
        if (performance.now() - startedAtMs > reportBoundMs) {
          throw new StaghornError('vm-failed', `guest ${name} wrote no more reports`, {
            context: { vm: name },
          });
        }
        await delay(pollMs);
      }
    }
  }

  /**
   * What the guests noticed on a time line that may have been cut and taken up again.
   * @param ranges the pieces of the time line, as offsets in the serial logs
   * @param from offsets that end what counts as before
   */
  async judge(
    ranges: readonly { from?: LogOffsets; to?: LogOffsets }[],
    from: LogOffsets,
  ): Promise<Judgement> {
    return judge(
      await Promise.all(
        this.#lab.vms.map(async ({ name, serialLog }) => {
          const reports = await readReports(
            serialLog,
            ranges.map((range) => rangeOf(range, name)),
          );
          const before = await readReports(serialLog, [{ to: from.get(name)! }]);
          return { reports, fromNs: lastUptime(before) };
        }),
      ),
    );
  }
}

function rangeOf(range: { from?: LogOffsets; to?: LogOffsets }, name: string): SerialRange {
  const [from, to] = [range.from?.get(name), range.to?.get(name)];
  return { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) };
}

const lastUptime = (reports: readonly GuestReport[]) => reports.at(-1)?.uptimeNs ?? 0;
