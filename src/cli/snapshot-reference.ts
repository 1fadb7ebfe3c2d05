import { z } from 'zod';

import { StaghornError } from '../errors/index.ts';
import { snapshot, type Snapshot } from '../protocol/resources.ts';
import type { Session } from './session.ts';

/** The snapshot that a person means: by its id, the beginning of one, its name, or EXPERIMENT/NAME. */
export async function findSnapshot(session: Session, reference: string): Promise<Snapshot> {
  return pickSnapshot(await session.get('/v1/snapshots', z.array(snapshot)), reference);
}

/** An exact id comes before names, and names before beginnings of ids. Throws `not-found`, `invalid-input`. */
export function pickSnapshot(all: readonly Snapshot[], reference: string): Snapshot {
  const matches = [
    (one: Snapshot) => one.id === reference,
    (one: Snapshot) => one.name !== null && [one.name, `${one.experiment}/${one.name}`].includes(reference),
    (one: Snapshot) => reference !== '' && one.id.startsWith(reference),
  ];
  const found = matches.map((match) => all.filter(match)).find((some) => some.length > 0) ?? [];
  const [only, ...others] = found;
  if (only === undefined) {
    throw new StaghornError(
      'not-found',
      `there is no snapshot "${reference}"; "staghorn snapshots" lists them`,
    );
  }
  if (others.length === 0) return only;
  const problems = found.map(
    ({ id, experiment, name }) => `${id} (${experiment}${name === null ? '' : `/${name}`})`,
  );
  const message = `"${reference}" means ${found.length} snapshots; say which by its id`;
  throw new StaghornError('invalid-input', message, { context: { problems } });
}
