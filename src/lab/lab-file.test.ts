import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { StaghornError } from '../errors/index.ts';
import { parseLabFile } from './lab-file.ts';

const MINIMAL = 'name: m\nhosts: [{ name: h1 }]\nvms: [{ name: a, host: h1 }]\n';

function problemsOf(text: string): readonly string[] {
  try {
    parseLabFile(text, 'x.yaml');
  } catch (error) {
    expect(error).toBeInstanceOf(StaghornError);
    const { code, context } = error as StaghornError;
    expect(code).toBe('invalid-input');
    return context.problems ?? [];
  }
  return [];
}

describe('a lab file', () => {
  it('needs hosts and VMs only, and has defaults for the rest', () => {
    const lab = parseLabFile(MINIMAL);
    expect(lab).toMatchObject({ accelerator: 'tcg', management: '198.18.0.0/24', underlay: '198.19.0.0/24' });
    expect(lab.hosts[0]!.switches).toEqual([{ name: 'br-int', datapath: 'netdev' }]);
    expect(lab.vms[0]).toMatchObject({ memoryMiB: 128, cpus: 1, nics: [{ switch: 'br-int' }] });
    expect(lab.vms[0]!.probe).toMatchObject({ udpIntervalMs: 20, tcp: true, tcpBytesPerSecond: 50_000 });
  });

  it('reports all problems at once, each with line, column and path', () => {
    const text = `name: Bad Name
hosts:
  - name: h1
    colour: red
vms:
  - { name: a, host: h1, memoryMiB: 12 }
  - { name: b, host: h1, cpus: many }
`;
    const problems = problemsOf(text);
    expect(problems).toHaveLength(4);
    expect(problems[0]).toMatch(/^1:7 name: /);
    expect(problems[1]).toMatch(/^4:13 hosts\[0\]\.colour: there is no such key$/);
    expect(problems[2]).toMatch(/^6:37 vms\[0\]\.memoryMiB: /);
    expect(problems[3]).toMatch(/^7:32 vms\[1\]\.cpus: /);
  });

  it('reports what does not fit together', () => {
    const text = `name: x
underlay: 198.18.0.0/20
hosts: [{ name: h1 }, { name: h1 }]
vms:
  - { name: a, host: h9 }
  - { name: b, host: h1, nics: [{ network: none, switch: br-x }], probe: { tcpFrom: { z: unlimited } } }
`;
    expect(problemsOf(text)).toEqual([
      '2:11 underlay: overlaps with the management subnet 198.18.0.0/24',
      '3:31 hosts[1].name: "h1" is there twice',
      '5:22 vms[0].host: there is no host "h9"',
      '6:44 vms[1].nics[0].network: there is no network "none"',
      '6:58 vms[1].nics[0].switch: host "h1" has no switch "br-x"',
      '6:90 vms[1].probe.tcpFrom.z: there is no VM "z"',
    ]);
  });

  it('refuses links that form a loop, which would multiply frames', () => {
    const links = [
      ['h1', 'h2'],
      ['h2', 'h3'],
      ['h3', 'h1'],
    ].map(([from, to]) => `{ from: ${from}, to: ${to} }`);
    const text = `name: x
hosts: [{ name: h1 }, { name: h2 }, { name: h3 }]
links: [${links.join(', ')}]
vms: [{ name: a, host: h1 }]
`;
    expect(problemsOf(text)).toEqual([
      expect.stringContaining('links[2]: the links of "br-int" form a loop'),
    ]);
  });

  it('says where YAML itself is broken', () => {
    expect(problemsOf('name: [x\nhosts: 1')[0]).toMatch(/^\d+:\d+ /);
  });

  it('is what every example is', () => {
    const directory = join(import.meta.dirname, '../../examples');
    const examples = readdirSync(directory).filter((file) => file.endsWith('.yaml'));
    expect(examples).toContain('two-hosts.yaml');
    for (const file of examples)
      expect(parseLabFile(readFileSync(join(directory, file), 'utf8'), file).name).toBeTruthy();
  });
});
