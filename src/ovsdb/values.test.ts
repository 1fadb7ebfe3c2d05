import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { OvsdbAtom, OvsdbValue } from './values.ts';
import {
  fromMap,
  fromOptional,
  fromSet,
  namedUuid,
  numbersOf,
  stringMapOf,
  stringsOf,
  toMap,
  toSet,
  uuid,
  uuidsOf,
} from './values.ts';

const atom: fc.Arbitrary<OvsdbAtom> = fc.oneof(
  fc.string(),
  fc.constantFrom('set', 'map', 'uuid'),
  fc.integer(),
  fc.boolean(),
  fc.uuid().map(uuid),
  fc.string().map(namedUuid),
);

/** What the other side sees of a value. */
function overTheWire(value: OvsdbValue): OvsdbValue {
  return JSON.parse(JSON.stringify(value)) as OvsdbValue;
}

describe('OVSDB values', () => {
  it('give back every set and every map', () => {
    fc.assert(
      fc.property(fc.array(atom), (atoms) => {
        expect(fromSet(overTheWire(toSet(atoms)))).toEqual(atoms);
      }),
    );
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.string()), (record) => {
        expect(stringMapOf(overTheWire(toMap(record)))).toEqual({ ...record });
        expect(fromMap(toMap(new Map(Object.entries(record))))).toEqual(new Map(Object.entries(record)));
      }),
    );
  });

  it('take a bare element as a set of one', () => {
    fc.assert(
      fc.property(atom, (item) => {
        expect(fromSet(overTheWire(item))).toEqual([item]);
        expect(fromOptional(item)).toEqual(item);
      }),
    );
    expect(fromOptional(['set', []])).toBeUndefined();
  });

  it('convert to the type that is asked for', () => {
    expect(stringsOf(['set', ['a', 'b']])).toEqual(['a', 'b']);
    expect(numbersOf(5)).toEqual([5]);
    expect(
      uuidsOf([
        'set',
        [
          ['uuid', 'u1'],
          ['uuid', 'u2'],
        ],
      ]),
    ).toEqual(['u1', 'u2']);
  });

  it.each<[string, () => unknown]>([
    ['two values where one may be', () => fromOptional(['set', [1, 2]])],
    ['a map for a set', () => fromSet(['map', []])],
    ['a set for a map', () => fromMap(['set', []])],
    ['a missing column', () => fromSet(undefined)],
    ['a number for a string', () => stringsOf(1)],
    ['a string for a UUID', () => uuidsOf('u')],
  ])('refuse %s', (_what, convert) => {
    expect(convert).toThrow(expect.objectContaining({ code: 'protocol' }));
  });
});
