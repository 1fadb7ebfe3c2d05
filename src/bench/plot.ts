import type { BenchResult } from './bench.ts';
import { quantile } from './bench.ts';

/**
 * Figures as a picture (SVG 1.1): a row each, on one logarithmic axis for each unit. A bar spans the middle eight
 * tenths of the single values, a line all of them, a mark is the median; a dashed line is the goal.
 */
export function plotResults(title: string, results: readonly BenchResult[]): string {
  const groups = groupsOf(results);
  let top = titleHeight;
  const parts: string[] = [text(margin, titleHeight - 14, title, 'font-size="15" font-weight="bold"')];
  for (const group of groups) {
    parts.push(...drawGroup(group, top));
    top += group.rows.length * rowHeight + axisHeight;
  }
  const size = `width="${width}" height="${top}" viewBox="0 0 ${width} ${top}"`;
  const style = 'font-family="sans-serif" font-size="11" fill="#222"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${style}>\n<rect width="100%" height="100%" fill="#fff"/>\n${parts.join('\n')}\n</svg>\n`;
}

const width = 960;
const margin = 16;
const labelWidth = 400;
const valueWidth = 90;
const titleHeight = 40;
const rowHeight = 22;
const axisHeight = 44;
const left = margin + labelWidth;
const right = width - margin - valueWidth;

interface Row {
  readonly label: string;
  readonly median: number;
  readonly low: number;
  readonly high: number;
  readonly least: number;
  readonly most: number;
  readonly limit: number | null;
}

interface Group {
  readonly unit: string;
  readonly rows: readonly Row[];
}

function groupsOf(results: readonly BenchResult[]): Group[] {
  const units = [...new Set(results.map(({ unit }) => unit))];
  return units.map((unit) => ({
    unit,
    rows: results.filter((result) => result.unit === unit).map(rowOf),
  }));
}

function rowOf({ metric, value, goal, samples }: BenchResult): Row {
  const values = samples === undefined || samples.length === 0 ? [value] : samples;
  const limit = goal === null ? null : /^[≤≥] ?([\d.]+)/.exec(goal);
  return {
    label: metric,
    median: value,
    low: quantile(values, 0.1),
    high: quantile(values, 0.9),
    least: Math.min(...values),
    most: Math.max(...values),
    limit: limit?.[1] === undefined ? null : Number(limit[1]),
  };
}

function drawGroup({ unit, rows }: Group, top: number): string[] {
  const all = rows.flatMap(({ least, most, median, limit }) => [least, most, median, limit ?? median]);
  const scale = scaleOf(all.filter((value) => value > 0));
  const bottom = top + rows.length * rowHeight;
  return [
    ...scale.ticks.flatMap((tick) => [
      line(scale.x(tick), top, scale.x(tick), bottom, 'stroke="#ddd"'),
      text(scale.x(tick), bottom + 14, short(tick), 'text-anchor="middle" fill="#666"'),
    ]),
    text(right + 8, bottom + 14, unit, 'fill="#666"'),
    ...rows.flatMap((row, place) => drawRow(row, top + place * rowHeight, scale.x)),
  ];
}

function drawRow(row: Row, top: number, x: (value: number) => number): string[] {
  const middle = top + rowHeight / 2;
  const bar = `<rect x="${x(row.low)}" y="${middle - 5}" width="${Math.max(2, x(row.high) - x(row.low))}" height="10" fill="#7aa6d8"/>`;
  const goal =
    row.limit === null
      ? []
      : [
          line(
            x(row.limit),
            top + 2,
            x(row.limit),
            top + rowHeight - 2,
            'stroke="#c33" stroke-dasharray="3 2"',
          ),
        ];
  return [
    text(left - 8, middle + 4, row.label, 'text-anchor="end"'),
    line(x(row.least), middle, x(row.most), middle, 'stroke="#7aa6d8"'),
    bar,
    line(x(row.median), middle - 7, x(row.median), middle + 7, 'stroke="#123" stroke-width="2"'),
    ...goal,
    text(right + 8, middle + 4, short(row.median), ''),
  ];
}

/** Zeros and below stand at the left end. */
function scaleOf(values: readonly number[]) {
  const from = Math.floor(Math.log10(Math.min(...values, 1)));
  const to = Math.max(from + 1, Math.ceil(Math.log10(Math.max(...values, 1))));
  const x = (value: number) => {
    const place = value <= 0 ? 0 : (Math.log10(value) - from) / (to - from);
    return Math.round((left + Math.min(1, Math.max(0, place)) * (right - left)) * 10) / 10;
  };
  return { x, ticks: Array.from({ length: to - from + 1 }, (_, power) => 10 ** (from + power)) };
}

function short(value: number): string {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (value >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}

function line(x1: number, y1: number, x2: number, y2: number, attributes: string): string {
  return `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" ${attributes}/>`;
}

function text(x: number, y: number, words: string, attributes: string): string {
  const escaped = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  return `<text x="${x}" y="${y}" ${attributes}>${escaped}</text>`;
}
