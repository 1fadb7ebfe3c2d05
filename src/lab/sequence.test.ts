import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** The probe's own judge of sequence numbers, compiled from its source and fed from standard input. */
const HARNESS = `
#include <inttypes.h>
#include <stdio.h>
#include "probe.h"
int main(void) {
  static struct judge j;
  uint64_t n;
  while (scanf("%" SCNu64, &n) == 1) judge_sequence(&j, n);
  printf("[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]", j.received, j.lost, j.duplicated, j.reordered);
}
`;

describe("the probe's judge of sequence numbers", () => {
  const directory = mkdtempSync(join(tmpdir(), 'judge-'));
  const program = join(directory, 'judge');
  const source = join(import.meta.dirname, 'guest');
  beforeAll(() => {
    writeFileSync(join(directory, 'main.c'), HARNESS);
    execFileSync('gcc', [
      '-std=gnu17',
      '-I',
      source,
      '-o',
      program,
      join(directory, 'main.c'),
      join(source, 'sequence.c'),
    ]);
  });
  afterAll(() => rmSync(directory, { recursive: true }));

  function judged(sequence: readonly number[]): {
    received: number;
    lost: number;
    duplicated: number;
    reordered: number;
  } {
    const output = execFileSync(program, { input: sequence.join('\n'), encoding: 'utf8' });
    const [received, lost, duplicated, reordered] = JSON.parse(output) as [number, number, number, number];
    return { received, lost, duplicated, reordered };
  }
  const upTo = (n: number): number[] => Array.from({ length: n }, (_, index) => index + 1);

  it('finds nothing wrong with numbers in order', () => {
    expect(judged(upTo(5000))).toEqual({ received: 5000, lost: 0, duplicated: 0, reordered: 0 });
  });

  it('counts a gap as lost once 32 later numbers could have come, and not before', () => {
    const without50 = (n: number): number[] => upTo(n).filter((value) => value !== 50);
    expect(judged(without50(81)).lost).toBe(0);
    expect(judged(without50(82)).lost).toBe(1);
    expect(judged(without50(4000))).toEqual({ received: 3999, lost: 1, duplicated: 0, reordered: 0 });
  });

  it('counts a loss at the very beginning', () => {
    expect(judged(upTo(100).slice(3)).lost).toBe(3);
  });

  it('takes a frame that comes late off the losses and counts it as reordered', () => {
    const late = [...upTo(500).filter((value) => value !== 50), 50];
    expect(judged(late)).toEqual({ received: 500, lost: 0, duplicated: 0, reordered: 1 });
    expect(judged([1, 3, 2, 4])).toEqual({ received: 4, lost: 0, duplicated: 0, reordered: 1 });
  });

  it('counts every copy beyond the first, however old', () => {
    expect(judged([...upTo(10), 10, 3])).toEqual({ received: 10, lost: 0, duplicated: 2, reordered: 0 });
    expect(judged([...upTo(3000), 5])).toEqual({ received: 3000, lost: 0, duplicated: 1, reordered: 0 });
  });

  it('counts a whole burst that is missing', () => {
    const gap = upTo(9000).filter((value) => value <= 100 || value > 5000);
    expect(judged(gap)).toEqual({ received: 4100, lost: 4900, duplicated: 0, reordered: 0 });
  });
});
