import type Database from 'libsql';

import { StaghornError } from '../../errors/index.ts';

/** What brings the catalog from each version of its schema to the next. What was released is never changed. */
const migrations: readonly string[] = [
  `
  CREATE TABLE experiments (name TEXT PRIMARY KEY, created_at TEXT NOT NULL, definition TEXT NOT NULL) STRICT;
  CREATE TABLE snapshots (
    id TEXT PRIMARY KEY,
    experiment TEXT NOT NULL,
    name TEXT,
    document TEXT NOT NULL,
    manifests TEXT NOT NULL
  ) STRICT;
  CREATE INDEX snapshots_by_experiment ON snapshots (experiment);
  CREATE UNIQUE INDEX snapshot_names ON snapshots (experiment, name) WHERE name IS NOT NULL;
  `,
  `
  CREATE TABLE moments (experiment TEXT PRIMARY KEY, snapshot TEXT NOT NULL) STRICT;
  CREATE TABLE rolling (experiment TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT;
  `,
];

/** @throws StaghornError 'version-mismatch' if a newer Staghorn wrote the file. */
export function migrate(database: Database.Database, path: string): void {
  const [{ user_version: found }] = database.pragma('user_version') as [{ user_version: number }];
  if (found > migrations.length) {
    throw new StaghornError('version-mismatch', `${path} is of a newer Staghorn (catalog version ${found})`);
  }
  migrations.slice(found).forEach((statements, index) => {
    database.exec(`BEGIN; ${statements} PRAGMA user_version = ${found + index + 1}; COMMIT;`);
  });
}
