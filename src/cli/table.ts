export type Cell = string | number;

/** Plain columns, two spaces apart: text to the left, numbers to the right. Control characters are made visible. */
export function formatTable(headings: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const texts = [headings, ...rows].map((row) => row.map((cell) => visible(String(cell))));
  const widths = headings.map((_, column) =>
    Math.max(...texts.map((row) => [...(row[column] ?? '')].length)),
  );
  const lines = texts.map((row, index) =>
    row
      .map((text, column) => {
        const isNumber = typeof rows[Math.max(index - 1, 0)]?.[column] === 'number';
        const padding = ' '.repeat((widths[column] ?? 0) - [...text].length);
        return isNumber ? padding + text : text + padding;
      })
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}

/** `label  value` lines. */
export function formatFields(
  fields: readonly (readonly [string, string | number | null | undefined])[],
): string {
  const width = Math.max(...fields.map(([label]) => label.length));
  return fields
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([label, value]) => `${label.padEnd(width)}  ${visible(String(value))}\n`)
    .join('');
}

/** Names and descriptions come from others: nothing in them may steer the terminal. */
function visible(text: string): string {
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, (char) => JSON.stringify(char).slice(1, -1));
}
