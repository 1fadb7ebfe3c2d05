/**
 * A QemuOpts string as its parts, so that one of them can be changed and all others stay as they were written: short
 * forms such as `server` and `nowait`, and keys that come several times, have no other spelling that every version
 * of QEMU takes. Parts are kept with their commas doubled (qemu(1)).
 */
export interface OptionText {
  readonly parts: readonly string[];
  /** The key of a first part that has none. */
  readonly impliedKey: string;
}

export function readOption(text: string, impliedKey: string): OptionText {
  const parts = text
    .replaceAll(',,', '\0')
    .split(',')
    .map((part) => part.replaceAll('\0', ',,'));
  return { parts, impliedKey };
}

export const writeOption = ({ parts }: OptionText): string => parts.join(',');

const keyOf = ({ impliedKey }: OptionText, part: string, place: number): string => {
  const equals = part.indexOf('=');
  if (equals >= 0) return part.slice(0, equals);
  return place === 0 ? impliedKey : part;
};

/** The value of a key; "on" for a short form, undefined if it is not there. */
export function valueOf(option: OptionText, key: string): string | undefined {
  const place = option.parts.findIndex((part, at) => keyOf(option, part, at) === key);
  if (place < 0) return undefined;
  const part = option.parts[place]!;
  const equals = part.indexOf('=');
  if (equals < 0) return place === 0 && key === option.impliedKey ? plain(part) : 'on';
  return plain(part.slice(equals + 1));
}

/** The same with this value under the key, in the same place if the key was there, else at the end. */
export function withValue(option: OptionText, key: string, value: string): OptionText {
  const escaped = value.replaceAll(',', ',,');
  const isThere = (part: string, at: number) => keyOf(option, part, at) === key;
  const place = option.parts.findIndex(isThere);
  if (place < 0) return { ...option, parts: [...option.parts, `${key}=${escaped}`] };
  const written = place === 0 && !option.parts[0]!.includes('=') ? escaped : `${key}=${escaped}`;
  const parts = option.parts.map((part, at) => (at === place ? written : part));
  return { ...option, parts: parts.filter((part, at) => at === place || !isThere(part, at)) };
}

export function without(option: OptionText, key: string): OptionText {
  return { ...option, parts: option.parts.filter((part, at) => keyOf(option, part, at) !== key) };
}

export const isOn = (value: string | undefined): boolean =>
  value !== undefined && ['on', 'yes', 'y', 'true'].includes(value);

const plain = (text: string) => text.replaceAll(',,', ',');
