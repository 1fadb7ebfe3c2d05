import { StaghornError } from '../errors/index.ts';

/**
 * The offered media type that an Accept header likes best (RFC 9110, section 12.5.1); the first offered one
 * among equals and without a header. Throws `not-acceptable`.
 */
export function preferredType<T extends string>(
  accept: string | undefined,
  offered: readonly [T, ...T[]],
): T {
  if (accept === undefined || accept.trim() === '') return offered[0];
  const ranges = accept.split(',').map(parseRange);
  const [best] = offered
    .map((type) => ({ type, quality: qualityOf(type, ranges) }))
    .filter(({ quality }) => quality > 0)
    .sort((a, b) => b.quality - a.quality);
  if (best !== undefined) return best.type;
  throw new StaghornError(
    'not-acceptable',
    `"Accept: ${accept}" cannot be met; there is ${offered.join(' and ')}`,
  );
}

interface Range {
  readonly pattern: string;
  readonly quality: number;
}

function parseRange(text: string): Range {
  const [pattern = '', ...parameters] = text.split(';').map((part) => part.trim().toLowerCase());
  const quality = parameters.find((parameter) => parameter.startsWith('q='))?.slice(2);
  return { pattern, quality: quality === undefined ? 1 : Number(quality) || 0 };
}

/** The most specific range that matches decides. */
function qualityOf(type: string, ranges: readonly Range[]): number {
  const family = `${type.slice(0, type.indexOf('/'))}/*`;
  for (const pattern of [type, family, '*/*']) {
    const range = ranges.find((candidate) => candidate.pattern === pattern);
    if (range !== undefined) return range.quality;
  }
  return 0;
}
