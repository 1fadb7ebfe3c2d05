import Database from 'libsql';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { makeSnapshot } from '../../../test/api/samples.ts';
import { Catalog } from './catalog.ts';

describe('the catalog', () => {
  let directory: string;
  let path: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'staghorn-catalog-'));
    path = join(directory, 'catalog.sqlite');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('brings one of version 1 up to date, with all that is in it', () => {
    const old = new Database(path);
    old.exec(`
      CREATE TABLE experiments (name TEXT PRIMARY KEY, created_at TEXT NOT NULL, definition TEXT NOT NULL) STRICT;
      CREATE TABLE snapshots (id TEXT PRIMARY KEY, experiment TEXT NOT NULL, name TEXT, document TEXT NOT NULL,
        manifests TEXT NOT NULL) STRICT;
      CREATE INDEX snapshots_by_experiment ON snapshots (experiment);
      CREATE UNIQUE INDEX snapshot_names ON snapshots (experiment, name) WHERE name IS NOT NULL;
      PRAGMA user_version = 1;`);
    const { labels: _labels, parent: _parent, ...before } = makeSnapshot(1);
    old
      .prepare('INSERT INTO snapshots (id, experiment, name, document, manifests) VALUES (?, ?, ?, ?, ?)')
      .run(before.id, before.experiment, null, JSON.stringify(before), '{}');
    old.close();
    const catalog = Catalog.open(path);
    expect(catalog.listSnapshots()[0]?.snapshot).toMatchObject({ id: before.id, labels: {}, parent: null });
    catalog.setMoment('lab', before.id);
    catalog.close();
    const again = Catalog.open(path);
    expect(again.momentOf('lab')).toBe(before.id);
    again.close();
  });

  it('refuses one of a newer schema', () => {
    const newer = new Database(path);
    newer.exec('PRAGMA user_version = 99');
    newer.close();
    expect(() => Catalog.open(path)).toThrow(/newer Staghorn/);
  });

  it('gives the children of a snapshot that is removed to its parent, and the present moment too', () => {
    const catalog = Catalog.open(path);
    const [root, middle, left, right] = [1, 2, 3, 4].map((number) => makeSnapshot(number));
    catalog.sealSnapshot({ snapshot: root!, manifests: {} });
    for (const [child, parent] of [
      [left, middle],
      [right, middle],
      [middle, root],
    ] as const)
      catalog.sealSnapshot({ snapshot: { ...child!, parent: parent!.id }, manifests: { h: 'x' } });
    expect(catalog.momentOf('lab')).toBe(middle!.id);
    catalog.removeSnapshot(middle!.id);
    expect(catalog.momentOf('lab')).toBe(root!.id);
    const parents = catalog.listSnapshots().map(({ snapshot }) => snapshot.parent);
    expect(parents).toEqual([null, root!.id, root!.id]);
    expect(catalog.findSnapshot(left!.id)?.manifests).toEqual({ h: 'x' });
    catalog.removeSnapshot(root!.id);
    expect(catalog.momentOf('lab')).toBeNull();
    catalog.close();
  });
});
