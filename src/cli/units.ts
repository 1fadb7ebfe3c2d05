/** Figures as people read them: three digits and a unit that fits. */

const durations = [
  ['s', 1e9],
  ['ms', 1e6],
  ['µs', 1e3],
  ['ns', 1],
] as const;
const sizes = [
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
  ['B', 1],
] as const;

export function formatDuration(ns: number): string {
  return scaled(ns, durations);
}

export function formatBytes(bytes: number): string {
  return scaled(bytes, sizes);
}

export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function scaled(value: number, units: readonly (readonly [string, number])[]): string {
  const [unit, size] = units.find(([, least]) => Math.abs(value) >= least) ?? units.at(-1) ?? ['', 1];
  const scaledValue = value / size;
  const digits =
    Number.isInteger(scaledValue) || Math.abs(scaledValue) >= 100 ? 0 : Math.abs(scaledValue) >= 10 ? 1 : 2;
  return `${scaledValue.toFixed(digits)} ${unit}`;
}
