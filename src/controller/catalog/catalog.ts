import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import Database from 'libsql';

import { StaghornError } from '../../errors/index.ts';
import { forkOrigin } from '../../protocol/fork.ts';
import { rolling, type Rolling } from '../../protocol/rolling.ts';
import { experimentInput, snapshot as snapshotSchema, type Snapshot } from '../../protocol/resources.ts';
import type { z } from 'zod';
import { migrate } from './catalog-schema.ts';

/** An experiment as it was registered. */
const experimentDefinition = experimentInput.extend({ fork: forkOrigin.optional() });
export type ExperimentDefinition = z.output<typeof experimentDefinition>;
export interface StoredExperiment extends ExperimentDefinition {
  readonly createdAt: string;
}

const lineage = snapshotSchema.pick({ state: true, parent: true });

/** A snapshot with what the controller needs to find and check it on its hosts. */
export interface StoredSnapshot {
  readonly snapshot: Snapshot;
  /** SHA-256 of each host's manifest, by the name of the host. */
  readonly manifests: Readonly<Record<string, string>>;
}

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
    migrate(database, path);
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
    this.#atOnce(() => {
      this.#database.prepare('DELETE FROM moments WHERE experiment = ?').run(name);
      this.#database.prepare('DELETE FROM rolling WHERE experiment = ?').run(name);
      this.#database.prepare('DELETE FROM experiments WHERE name = ?').run(name);
    });
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

  /** Its children become those of its parent, which is the experiment's moment now if it was that. */
  removeSnapshot(id: string): void {
    const parent = this.findSnapshot(id)?.snapshot.parent ?? null;
    this.#atOnce(() => {
      for (const child of this.listSnapshots().filter(({ snapshot }) => snapshot.parent === id))
        this.putSnapshot({ ...child, snapshot: { ...child.snapshot, parent } });
      if (parent === null) this.#database.prepare('DELETE FROM moments WHERE snapshot = ?').run(id);
      else this.#database.prepare('UPDATE moments SET snapshot = ? WHERE snapshot = ?').run(parent, id);
      this.#database.prepare('DELETE FROM snapshots WHERE id = ?').run(id);
    });
  }

  /** A snapshot that is whole: from here on it is the moment that its experiment came from. */
  sealSnapshot(stored: StoredSnapshot): void {
    this.#atOnce(() => {
      this.putSnapshot(stored);
      this.setMoment(stored.snapshot.experiment, stored.snapshot.id);
    });
  }

  /** Without reading all of its document, which is large at many VMs; null if there is no such snapshot. */
  lineageOf(id: string): Pick<Snapshot, 'state' | 'parent'> | null {
    const row = this.#database
      .prepare(
        "SELECT document ->> '$.state' AS state, document ->> '$.parent' AS parent FROM snapshots WHERE id = ?",
      )
      .get(id);
    if (row === undefined) return null;
    const { state, parent } = row as { state: unknown; parent: unknown };
    return lineage.parse({ state, parent });
  }

  /** The snapshot that an experiment was last restored from, or that was taken last; null if there is none. */
  momentOf(experiment: string): string | null {
    const row = this.#database.prepare('SELECT snapshot FROM moments WHERE experiment = ?').get(experiment);
    return row === undefined ? null : (row as { snapshot: string }).snapshot;
  }

  /** One that it is already is not written again: that would wait for the disk at each of many resets. */
  setMoment(experiment: string, snapshot: string): void {
    if (this.momentOf(experiment) === snapshot) return;
    this.#database
      .prepare('INSERT OR REPLACE INTO moments (experiment, snapshot) VALUES (?, ?)')
      .run(experiment, snapshot);
  }

  putRolling(document: Rolling): void {
    this.#database
      .prepare('INSERT OR REPLACE INTO rolling (experiment, document) VALUES (?, ?)')
      .run(document.experiment, JSON.stringify(document));
  }

  listRolling(): Rolling[] {
    const rows = this.#database.prepare('SELECT document FROM rolling ORDER BY experiment').all();
    return rows.map((row) => rolling.parse(JSON.parse((row as { document: string }).document)));
  }

  removeRolling(experiment: string): void {
    this.#database.prepare('DELETE FROM rolling WHERE experiment = ?').run(experiment);
  }

  /** All of it or nothing, also if the controller is killed in between. */
  #atOnce(work: () => void): void {
    this.#database.transaction(work)();
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
