import { describe, expect, it } from 'vitest';

import type { BenchResult } from './bench.ts';
import { plotResults } from './plot.ts';
import { performancePage, reportOf } from './report.ts';

const late: BenchResult = {
  metric: 'lateness <best>',
  value: 3,
  unit: 'ns',
  goal: '≤ 10',
  met: true,
  reference: 'a | b',
  samples: [1, 3, 5, 2_000_000],
};
const none: BenchResult = {
  metric: 'lost',
  value: 0,
  unit: 'frames',
  goal: null,
  met: null,
  reference: null,
};

describe('the picture of a bench', () => {
  it('has a row for each figure, a mark for its goal, and an axis for each unit', () => {
    const svg = plotResults('timer', [late, none]);
    expect(svg).toContain('lateness &lt;best&gt;');
    expect(svg.match(/stroke-dasharray/g)).toHaveLength(1);
    for (const unit of ['ns', 'frames']) expect(svg).toContain(`>${unit}</text>`);
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
  });
});

describe('the page of figures', () => {
  it('says by which command each figure was measured, on what machine, and whether its goal was met', () => {
    const page = performancePage([reportOf('timer', true, [late, { ...late, met: false }])]);
    expect(page).toContain('`npm run bench -- timer --quick`');
    expect(page).toContain('| lateness <best> | 3 ns | ≤ 10 | met | a \\| b |');
    expect(page).toContain('**not met**');
    expect(page).toContain('![timer](performance/timer.svg)');
  });
});
