import { OvsdbError } from './errors.ts';

/** RFC 7047, section 5.1. Integers beyond 2^53 lose precision. */
export type OvsdbAtom =
  string | number | boolean | readonly ['uuid', string] | readonly ['named-uuid', string];

export type OvsdbSet = readonly ['set', readonly OvsdbAtom[]];
export type OvsdbMap = readonly ['map', readonly (readonly [OvsdbAtom, OvsdbAtom])[]];
export type OvsdbValue = OvsdbAtom | OvsdbSet | OvsdbMap;
export type OvsdbRow = Readonly<Record<string, OvsdbValue>>;

export function uuid(id: string): readonly ['uuid', string] {
  return ['uuid', id];
}

/** A row that an earlier operation of the same transaction inserts under this `uuid-name`. */
export function namedUuid(name: string): readonly ['named-uuid', string] {
  return ['named-uuid', name];
}

export function toSet(atoms: Iterable<OvsdbAtom>): OvsdbSet {
  return ['set', [...atoms]];
}

export function toMap(
  entries: Iterable<readonly [OvsdbAtom, OvsdbAtom]> | Readonly<Record<string, OvsdbAtom>>,
): OvsdbMap {
  const pairs = Symbol.iterator in entries ? entries : Object.entries(entries);
  return ['map', [...pairs].map(([key, value]) => [key, value] as const)];
}

function isTagged(value: OvsdbValue | undefined, tag: string): boolean {
  return Array.isArray(value) && value[0] === tag;
}

/**
 * The elements of a set column. A set of one may come as its bare element (RFC 7047, section 5.1).
 * @throws OvsdbError 'protocol' if it is a map, or no value.
 */
export function fromSet(value: OvsdbValue | undefined): OvsdbAtom[] {
  if (isTagged(value, 'set')) return (value as OvsdbSet)[1].map(checkedAtom);
  return [checkedAtom(value)];
}

/** The element of a column that holds none or one. @throws OvsdbError 'protocol' if there are more. */
export function fromOptional(value: OvsdbValue | undefined): OvsdbAtom | undefined {
  const atoms = fromSet(value);
  if (atoms.length > 1) throw new OvsdbError('protocol', `one value at most: ${JSON.stringify(value)}`);
  return atoms[0];
}

/** @throws OvsdbError 'protocol' if it is no map. */
export function fromMap(value: OvsdbValue | undefined): Map<OvsdbAtom, OvsdbAtom> {
  if (!isTagged(value, 'map')) throw new OvsdbError('protocol', `not a map: ${JSON.stringify(value)}`);
  return new Map((value as OvsdbMap)[1].map(([key, item]) => [checkedAtom(key), checkedAtom(item)] as const));
}

/** @throws OvsdbError 'protocol' unless each is a string. */
export function stringsOf(value: OvsdbValue | undefined): string[] {
  return fromSet(value).map((atom) => ofType(atom, isString, 'a string'));
}

/** @throws OvsdbError 'protocol' unless each is a number. */
export function numbersOf(value: OvsdbValue | undefined): number[] {
  return fromSet(value).map((atom) => ofType(atom, isNumber, 'a number'));
}

/** The UUIDs alone. @throws OvsdbError 'protocol' unless each is a UUID. */
export function uuidsOf(value: OvsdbValue | undefined): string[] {
  return fromSet(value).map((atom) => ofType(atom, isUuid, 'a UUID')[1]);
}

/** A map of strings to strings, such as external_ids. @throws OvsdbError 'protocol' if it is none. */
export function stringMapOf(value: OvsdbValue | undefined): Readonly<Record<string, string>> {
  const entries = [...fromMap(value)].map(
    ([key, item]) => [ofType(key, isString, 'a string'), ofType(item, isString, 'a string')] as const,
  );
  return Object.fromEntries(entries);
}

const isString = (atom: OvsdbAtom): atom is string => typeof atom === 'string';
const isNumber = (atom: OvsdbAtom): atom is number => typeof atom === 'number';
const isUuid = (atom: OvsdbAtom): atom is readonly ['uuid', string] => isTagged(atom, 'uuid');

function ofType<T extends OvsdbAtom>(
  atom: OvsdbAtom,
  guard: (atom: OvsdbAtom) => atom is T,
  what: string,
): T {
  if (!guard(atom)) throw new OvsdbError('protocol', `not ${what}: ${JSON.stringify(atom)}`);
  return atom;
}

function checkedAtom(value: OvsdbValue | undefined): OvsdbAtom {
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  const isUuidPair = isTagged(value, 'uuid') || isTagged(value, 'named-uuid');
  if (isUuidPair && typeof (value as readonly unknown[])[1] === 'string') return value as OvsdbAtom;
  throw new OvsdbError('protocol', `not an atom: ${JSON.stringify(value)}`);
}
