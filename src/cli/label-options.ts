import { InvalidArgumentError } from 'commander';

/** Collects `--label key=value` options; a key alone has an empty value. */
export function collectLabel(given: string, before: Record<string, string> = {}): Record<string, string> {
  const equals = given.indexOf('=');
  const key = equals < 0 ? given : given.slice(0, equals);
  if (key === '') throw new InvalidArgumentError('must be KEY=VALUE');
  return { ...before, [key]: equals < 0 ? '' : given.slice(equals + 1) };
}

/** Collects an option that may be given several times. */
export const collect = (given: string, before: string[] = []): string[] => [...before, given];

/** Collects `--map HOST=HOST` options. */
export function collectPair(given: string, before: string[] = []): string[] {
  if (!/^[^=]+=[^=]+$/.test(given)) throw new InvalidArgumentError('must be HOST=HOST');
  return [...before, given];
}

/** A whole number that is not negative. */
export function parseCount(given: string): number {
  if (!/^\d{1,9}$/.test(given)) throw new InvalidArgumentError('must be a whole number');
  return Number(given);
}

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 24 * 3600 };

/** `90s`, `5m`, `2h`, `1d`, in seconds. */
export function parseSeconds(given: string): number {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(given) ?? [];
  if (count === undefined || unit === undefined)
    throw new InvalidArgumentError('must be like 90s, 5m, 2h or 1d');
  return Number(count) * unitSeconds[unit]!;
}
