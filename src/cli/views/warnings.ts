/** A line for each; nothing if there are none. */
export function formatWarnings(warnings: readonly string[]): string {
  return warnings.map((text) => `warning: ${text}\n`).join('');
}
