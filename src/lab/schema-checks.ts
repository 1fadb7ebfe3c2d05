import { nicProblems } from './nic-checks.ts';
import { labFields, type LabFile } from './schema.ts';
import { overlaps, parseSubnet } from './subnet.ts';

/** What a lab file's keys must be to each other. All problems are reported at once, each at its key. */
type Report = (path: (string | number)[], message: string) => void;

function checkUnique(items: readonly { name: string }[], kind: string, report: Report): void {
  const seen = new Set<string>();
  items.forEach(({ name }, index) => {
    if (seen.has(name)) report([kind, index, 'name'], `"${name}" is there twice`);
    seen.add(name);
  });
}

function checkVms(lab: LabFile, report: Report): void {
  lab.vms.forEach((candidate, v) => {
    const on = lab.hosts.find(({ name }) => name === candidate.host);
    if (on === undefined) report(['vms', v, 'host'], `there is no host "${candidate.host}"`);
    for (const peer of Object.keys(candidate.probe.tcpFrom)) {
      if (!lab.vms.some(({ name }) => name === peer))
        report(['vms', v, 'probe', 'tcpFrom', peer], `there is no VM "${peer}"`);
    }
    candidate.nics.forEach((port, n) => {
      for (const { key, message } of nicProblems(port, lab.networks))
        report(['vms', v, 'nics', n, key], message);
      if (on !== undefined && !on.switches.some(({ name }) => name === port.switch))
        report(['vms', v, 'nics', n, 'switch'], `host "${on.name}" has no switch "${port.switch}"`);
    });
  });
}

/** The switch forwards by MAC learning without a spanning tree: a ring of links would multiply frames. */
function checkLinks(lab: LabFile, report: Report): void {
  const parent = new Map<string, string>();
  const root = (name: string): string => {
    const above = parent.get(name);
    return above === undefined ? name : root(above);
  };
  lab.links?.forEach((candidate, l) => {
    const ends = [candidate.from, candidate.to].map((name) => lab.hosts.find((one) => one.name === name));
    ends.forEach((end, e) => {
      const key = e === 0 ? 'from' : 'to';
      if (end === undefined) report(['links', l, key], `there is no host "${candidate[key]}"`);
      else if (!end.switches.some(({ name }) => name === candidate.switch))
        report(['links', l, 'switch'], `host "${end.name}" has no switch "${candidate.switch}"`);
    });
    const [from, to] = [candidate.from, candidate.to].map((name) => root(`${candidate.switch} ${name}`)) as [
      string,
      string,
    ];
    if (from === to) report(['links', l], `the links of "${candidate.switch}" form a loop`);
    else parent.set(from, to);
  });
}

export const labSchema = labFields.superRefine((lab, context) => {
  const report: Report = (path, message) => context.addIssue({ code: 'custom', path, message });
  checkUnique(lab.hosts, 'hosts', report);
  checkUnique(lab.networks, 'networks', report);
  checkUnique(lab.vms, 'vms', report);
  lab.hosts.forEach(({ switches }, index) => {
    checkUnique(switches, 'switches', (path, message) => report(['hosts', index, ...path], message));
    if (switches.some(({ name }) => name === 'br-underlay'))
      report(['hosts', index, 'switches'], '"br-underlay" is the name of the lab\'s own bridge');
  });
  checkVms(lab, report);
  checkLinks(lab, report);
  const [management, underlay] = [parseSubnet(lab.management), parseSubnet(lab.underlay)];
  if (management !== undefined && underlay !== undefined && overlaps(management, underlay))
    report(['underlay'], `overlaps with the management subnet ${lab.management}`);
});
