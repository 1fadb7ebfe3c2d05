import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import Database from 'libsql';

import { StaghornError } from '../errors/index.ts';
import { forkOrigin } from '../protocol/fork.ts';
import { experimentInput, snapshot as snapshotSchema, type Snapshot } from '../protocol/resources.ts';
import type { z } from 'zod';

/** An experiment as it was registered. */
const experimentDefinition = experimentInput.extend({ fork: forkOrigin.optional() });
export type ExperimentDefinition = z.output<typeof experimentDefinition>;
export interface StoredExperiment extends ExperimentDefinition {
  readonly createdAt: string;
}

/** A snapshot with what the controller needs to find and check it on its hosts. */
export interface StoredSnapshot {
  readonly snapshot: Snapshot;
  /** SHA-256 of each host's manifest, by the name of the host. */
  readonly manifests: Readonly<Record<string, string>>;
}

const schemaVersion = 1;
const schema = `
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
`;

/** The controller's memory: experiments and snapshots, in SQLite. */
export class Catalog {
  readonly #database: Database.Database;

  private constructor(database: Database.Database) {
    this.#database = database;
  }

  /** @throws StaghornError 'version-mismatch' if a newer Staghorn wrote the file. */
  static open(path: string): Catalog {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    const database = new Database(path);
    database.pragma('journal_mode = WAL');
    database.pragma('synchronous = FULL');
    const [{ user_version: found }] = database.pragma('user_version') as [{ user_version: number }];
    if (found > schemaVersion) {
      throw new StaghornError(
        'version-mismatch',
        `${path} is of a newer Staghorn (catalog version ${found})`,
      );
    }
    if (found === 0) database.exec(`BEGIN; ${schema} PRAGMA user_version = ${schemaVersion}; COMMIT;`);
    return new Catalog(database);
  }

  close(): void {
    this.#database.close();
  }

  /** @throws StaghornError 'conflict' if the name is taken. */
  addExperiment(definition: ExperimentDefinition, createdAt: string): void {
    if (this.findExperiment(definition.name) !== null) {
      throw new StaghornError('conflict', `there is an experiment ${definition.name} already`);
    }
    this.#database
      .prepare('INSERT INTO experiments (name, created_at, definition) VALUES (?, ?, ?)')
      .run(definition.name, createdAt, JSON.stringify(definition));
  }

  findExperiment(name: string): StoredExperiment | null {
    const row = this.#database.prepare('SELECT * FROM experiments WHERE name = ?').get(name);
    return row === undefined ? null : readExperiment(row);
  }

  listExperiments(): StoredExperiment[] {
    return this.#database.prepare('SELECT * FROM experiments ORDER BY name').all().map(readExperiment);
  }

  removeExperiment(name: string): void {
    this.#database.prepare('DELETE FROM experiments WHERE name = ?').run(name);
  }

  /** Adds it or replaces it: one statement, so that a snapshot is in one state or in the next. */
  putSnapshot({ snapshot, manifests }: StoredSnapshot): void {
    this.#database
      .prepare(
        'INSERT OR REPLACE INTO snapshots (id, experiment, name, document, manifests) VALUES (?, ?, ?, ?, ?)',
      )
      .run(
        snapshot.id,
        snapshot.experiment,
        snapshot.name,
        JSON.stringify(snapshot),
        JSON.stringify(manifests),
      );
  }

  findSnapshot(id: string): StoredSnapshot | null {
    const row = this.#database.prepare('SELECT * FROM snapshots WHERE id = ?').get(id);
    return row === undefined ? null : readSnapshot(row);
  }

  findSnapshotByName(experiment: string, name: string): StoredSnapshot | null {
    const row = this.#database
      .prepare('SELECT * FROM snapshots WHERE experiment = ? AND name = ?')
      .get(experiment, name);
    return row === undefined ? null : readSnapshot(row);
  }

  /** In the order of time. */
  listSnapshots(): StoredSnapshot[] {
    return this.#database.prepare('SELECT * FROM snapshots ORDER BY id').all().map(readSnapshot);
  }

  removeSnapshot(id: string): void {
    this.#database.prepare('DELETE FROM snapshots WHERE id = ?').run(id);
  }
}

function readExperiment(row: unknown): StoredExperiment {
  const { definition, created_at: createdAt } = row as { definition: string; created_at: string };
  return { ...experimentDefinition.parse(JSON.parse(definition)), createdAt };
}

function readSnapshot(row: unknown): StoredSnapshot {
  const { document, manifests } = row as { document: string; manifests: string };
  return {
    snapshot: snapshotSchema.parse(JSON.parse(document)),
    manifests: JSON.parse(manifests) as Record<string, string>,
  };
}
