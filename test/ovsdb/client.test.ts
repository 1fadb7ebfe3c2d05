import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { OvsdbOperation, OvsdbTableUpdates, Transport } from '../../src/ovsdb/index.ts';
import {
  OvsdbClient,
  connectUnixSocket,
  namedUuid,
  openVSwitch,
  readSwitches,
  toMap,
  toSet,
} from '../../src/ovsdb/index.ts';
import { OvsdbServer, serverBinary } from './ovsdb-server.ts';

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;

/** Two bridges: one with an access port and a bond that trunks, one empty; under the root row that keeps them. */
const twoSwitches: OvsdbOperation[] = [
  {
    op: 'insert',
    table: 'Interface',
    'uuid-name': 'tap',
    row: { name: 'tap0', ofport: 3, mac_in_use: '52:54:00:00:00:01', admin_state: 'up', link_state: 'down' },
  },
  {
    op: 'insert',
    table: 'Interface',
    'uuid-name': 'vx0',
    row: { name: 'vx0', type: 'vxlan', options: toMap({ remote_ip: '192.0.2.1', key: '7' }) },
  },
  { op: 'insert', table: 'Interface', 'uuid-name': 'vx1', row: { name: 'vx1', type: 'vxlan' } },
  {
    op: 'insert',
    table: 'Port',
    'uuid-name': 'access',
    row: {
      name: 'tap0',
      interfaces: namedUuid('tap'),
      tag: 10,
      vlan_mode: 'access',
      external_ids: toMap({ vm: 'a' }),
    },
  },
  {
    op: 'insert',
    table: 'Port',
    'uuid-name': 'bond',
    row: { name: 'bond0', interfaces: toSet([namedUuid('vx1'), namedUuid('vx0')]), trunks: toSet([1, 2]) },
  },
  {
    op: 'insert',
    table: 'Bridge',
    'uuid-name': 'br0',
    row: { name: 'br0', datapath_type: 'netdev', ports: toSet([namedUuid('access'), namedUuid('bond')]) },
  },
  { op: 'insert', table: 'Bridge', 'uuid-name': 'br1', row: { name: 'a-bridge' } },
  { op: 'insert', table: 'Open_vSwitch', row: { bridges: toSet([namedUuid('br0'), namedUuid('br1')]) } },
];

describe.skipIf(!existsSync(serverBinary))('OvsdbClient with a real ovsdb-server (needs openvswitch)', () => {
  let server: OvsdbServer;
  const opened: OvsdbClient[] = [];

  async function connect(
    options: { inactivityProbeMs?: number; maxMessageBytes?: number } = {},
  ): Promise<OvsdbClient> {
    const client = await OvsdbClient.connect({ path: server.path, ...options });
    opened.push(client);
    return client;
  }

  beforeAll(async () => {
    server = new OvsdbServer();
    await server.listening();
  });

  afterEach(async () => {
    for (const client of opened.splice(0)) await client.close();
  });

  afterAll(async () => {
    await server.destroy();
  });

  it('lists databases, reads the schema and echoes', async () => {
    const client = await connect();
    expect(await client.listDbs()).toEqual(expect.arrayContaining([openVSwitch, '_Server']));
    const schema = await client.getSchema(openVSwitch);
    expect(schema.tables['Bridge']?.columns).toHaveProperty('datapath_type');
    await client.echo();
  });

  it('refuses an answer over the limit', async () => {
    const client = await connect({ maxMessageBytes: 5000 });
    await expect(client.getSchema(openVSwitch)).rejects.toEqual(withCode('oversize'));
    expect((await client.closed)?.code).toBe('oversize');
  });

  it('reads bridges, ports and interfaces as they were written', async () => {
    const client = await connect();
    expect(await readSwitches(client)).toEqual([]);
    const inserted = await client.transact(openVSwitch, twoSwitches);
    expect(inserted.map(({ uuid }) => uuid?.[0])).toEqual(twoSwitches.map(() => 'uuid'));
    const [empty, full] = await readSwitches(client);
    expect(empty).toMatchObject({ name: 'a-bridge', datapathType: 'system', ports: [] });
    expect(full).toMatchObject({ name: 'br0', datapathType: 'netdev', uuid: inserted[5]?.uuid?.[1] });
    expect(full?.ports).toEqual([
      {
        ...{ uuid: inserted[4]?.uuid?.[1], name: 'bond0', tag: undefined, trunks: [1, 2] },
        ...{ vlanMode: undefined, qos: undefined, externalIds: {} },
        interfaces: [
          expect.objectContaining({
            name: 'vx0',
            type: 'vxlan',
            options: { remote_ip: '192.0.2.1', key: '7' },
          }),
          expect.objectContaining({ name: 'vx1', options: {}, ofport: undefined }),
        ],
      },
      {
        ...{ uuid: inserted[3]?.uuid?.[1], name: 'tap0', tag: 10, trunks: [] },
        ...{ vlanMode: 'access', qos: undefined, externalIds: { vm: 'a' } },
        interfaces: [
          {
            ...{ uuid: inserted[0]?.uuid?.[1], name: 'tap0', type: 'system', options: {}, ofport: 3 },
            ...{ externalIds: {}, macInUse: '52:54:00:00:00:01', adminState: 'up', linkState: 'down' },
          },
        ],
      },
    ]);
  });

  it('reports the operation that failed, and a database that is not there', async () => {
    const client = await connect();
    const bad: OvsdbOperation[] = [
      { op: 'comment', comment: 'fine' },
      { op: 'update', table: 'Port', where: [['name', '==', 'tap0']], row: { tag: 5000 } },
    ];
    await expect(client.transact(openVSwitch, bad)).rejects.toMatchObject({
      code: 'operation-failed',
      failure: {
        error: 'constraint violation',
        details: expect.stringMatching(/5000/) as string,
        operationIndex: 1,
      },
    });
    const duplicate: OvsdbOperation[] = [
      { op: 'insert', table: 'Bridge', 'uuid-name': 'b', row: { name: 'br0' } },
      { op: 'mutate', table: openVSwitch, where: [], mutations: [['bridges', 'insert', namedUuid('b')]] },
    ];
    await expect(client.transact(openVSwitch, duplicate)).rejects.toMatchObject({
      message: expect.stringMatching(/^commit: constraint violation/) as string,
      failure: { operationIndex: 2 },
    });
    await expect(client.transact('nowhere', [])).rejects.toMatchObject({
      code: 'request-failed',
      failure: { error: 'unknown database' },
    });
  });

  it('follows changes that another client makes, until it is cancelled', async () => {
    const [watcher, changer] = [await connect(), await connect()];
    const updates: OvsdbTableUpdates[] = [];
    const requests = { Port: { columns: ['name', 'tag'] } };
    const monitor = await watcher.monitor(openVSwitch, requests, (update) => updates.push(update));
    const ports = Object.entries(monitor.initial['Port'] ?? {});
    const [id] = ports.find(([, row]) => row.new?.['name'] === 'tap0') ?? ['none'];
    expect(ports.find(([uuid]) => uuid === id)?.[1].new).toEqual({ name: 'tap0', tag: 10 });

    const retag = (tag: number): OvsdbOperation => ({
      op: 'update',
      table: 'Port',
      where: [['name', '==', 'tap0']],
      row: { tag },
    });
    expect(await changer.transact(openVSwitch, [retag(20)])).toEqual([{ count: 1 }]);
    await vi.waitUntil(() => updates.length > 0, { timeout: 20_000 });
    expect(updates).toEqual([{ Port: { [id]: { old: { tag: 10 }, new: { name: 'tap0', tag: 20 } } } }]);

    await monitor.cancel();
    await changer.transact(openVSwitch, [retag(10)]);
    await watcher.echo(); // comes after any update that would still be under way
    expect(updates).toHaveLength(1);
  });

  it("answers the server's echoes, so that the server keeps the connection", async () => {
    const path = join(server.directory, 'probing.sock');
    const admin = await connect();
    await admin.transact(openVSwitch, [
      {
        op: 'insert',
        table: 'Manager',
        'uuid-name': 'm',
        row: { target: `punix:${path}`, inactivity_probe: 1000 },
      },
      {
        op: 'mutate',
        table: openVSwitch,
        where: [],
        mutations: [['manager_options', 'insert', namedUuid('m')]],
      },
    ]);
    await server.listening(path);
    const received: string[] = [];
    const client = OvsdbClient.over(tapped(await connectUnixSocket(path), received), {
      inactivityProbeMs: 0,
    });
    opened.push(client);
    await client.listDbs(); // a server probes only those who have spoken
    const echoes = (): number => received.join('').split('"method":"echo"').length - 1;
    // Unanswered, the first echo would be the last: the server hangs up one interval later.
    await vi.waitUntil(() => echoes() >= 2, { timeout: 25_000 });
    expect(await client.listDbs()).toContain(openVSwitch);
  });

  it('gives up a server that stands still, and not one that is only quiet', async () => {
    const received: string[] = [];
    const transport = tapped(await connectUnixSocket(server.path), received);
    const client = OvsdbClient.over(transport, { inactivityProbeMs: 500 });
    opened.push(client);
    // Nothing is asked of it but the probes' echoes, and it answers those.
    await vi.waitUntil(() => received.length >= 2, { timeout: 20_000 });
    server.process.kill('SIGSTOP');
    try {
      expect((await client.closed)?.code).toBe('inactive');
    } finally {
      server.process.kill('SIGCONT');
    }
  });

  // The last one: it takes the server away.
  it('fails what is pending when the server is killed', async () => {
    const client = await connect();
    server.process.kill('SIGSTOP');
    const pending = client.listDbs();
    server.process.kill('SIGKILL');
    await expect(pending).rejects.toEqual(withCode('disconnected'));
    expect((await client.closed)?.code).toBe('disconnected');
  });
});

describe('connecting', () => {
  it('says which socket is not there', async () => {
    const path = `/tmp/staghorn-ovsdb-${process.pid}-nowhere.sock`;
    await expect(OvsdbClient.connect({ path })).rejects.toMatchObject({
      code: 'connect-failed',
      message: expect.stringContaining(path) as string,
    });
  });
});

/** The same transport, with what it delivers written down as well. */
function tapped(transport: Transport, received: string[]): Transport {
  return {
    start(handlers) {
      transport.start({
        onClosed: (cause) => {
          handlers.onClosed(cause);
        },
        onData: (chunk) => {
          received.push(Buffer.from(chunk).toString());
          handlers.onData(chunk);
        },
      });
    },
    write: (bytes) => {
      transport.write(bytes);
    },
    close: () => {
      transport.close();
    },
  };
}
