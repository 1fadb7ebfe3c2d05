/**
 * Where a text stops being JSON (RFC 8259), as an offset; its length if it only ends too early; null if it is
 * JSON. `JSON.parse` of Node 20 tells the position of some errors only.
 */
export function jsonErrorOffset(text: string): number | null {
  const nesting: ('{' | '[')[] = [];
  let state: State = 'value';
  let offset = 0;
  while (true) {
    offset += matchAt(/[ \t\n\r]*/y, text, offset);
    if (offset === text.length) return state === 'end' ? null : offset;
    const length = tokenLength(state, text, offset);
    if (length === 0) return offset;
    state = next(state, text.charAt(offset), nesting);
    offset += length;
  }
}

/** Line and column, counted from 1, of an offset. */
export function lineAndColumn(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset).split('\n');
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}

type State = 'value' | 'firstItem' | 'firstKey' | 'key' | 'colon' | 'afterItem' | 'afterMember' | 'end';

const string = String.raw`"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"`;
const value = String.raw`${string}|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[{[]`;
const allowed: Record<State, RegExp> = {
  value: new RegExp(value, 'y'),
  firstItem: new RegExp(String.raw`${value}|\]`, 'y'),
  firstKey: new RegExp(String.raw`${string}|\}`, 'y'),
  key: new RegExp(string, 'y'),
  colon: /:/y,
  afterItem: /[,\]]/y,
  afterMember: /[,}]/y,
  end: /$^/y,
};

function tokenLength(state: State, text: string, offset: number): number {
  return matchAt(allowed[state], text, offset);
}

function matchAt(pattern: RegExp, text: string, offset: number): number {
  pattern.lastIndex = offset;
  return pattern.exec(text)?.[0].length ?? 0;
}

function next(state: State, first: string, nesting: ('{' | '[')[]): State {
  if (first === '{' || first === '[') {
    nesting.push(first);
    return first === '{' ? 'firstKey' : 'firstItem';
  }
  if (first === '}' || first === ']') nesting.pop();
  else if (state === 'key' || state === 'firstKey') return 'colon';
  else if (first === ':') return 'value';
  else if (first === ',') return state === 'afterMember' ? 'key' : 'value';
  const innermost = nesting.at(-1);
  if (innermost === undefined) return 'end';
  return innermost === '{' ? 'afterMember' : 'afterItem';
}
