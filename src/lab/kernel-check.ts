import { access } from 'node:fs/promises';
import { StaghornError } from '../errors/index.ts';
import { CommandError, run } from './command.ts';
import { LINK_PARTS, shapedTunnels } from './link-shaping.ts';
import type { LabPlan } from './plan.ts';
import { disciplineOf, type KernelPart } from './shaping.ts';

/**
 * What a lab asks of the machine's kernel beyond the usual is found out before anything is made, and by trying: only
 * the kernel knows whether it has a module or can load it.
 */
interface Need {
  readonly part: KernelPart;
  /** Where in the lab it is asked for. */
  readonly by: string;
}

/** What each part is called in the kernel, and a use of it on the device "trial". */
const parts: Readonly<Record<KernelPart, { module: string; option: string; tries: readonly string[] }>> = {
  tbf: {
    module: 'sch_tbf',
    option: 'CONFIG_NET_SCH_TBF',
    tries: ['tc qdisc add dev trial root tbf rate 1mbit burst 4kb limit 64kb'],
  },
  netem: {
    module: 'sch_netem',
    option: 'CONFIG_NET_SCH_NETEM',
    tries: ['tc qdisc add dev trial root netem delay 1ms'],
  },
  htb: {
    module: 'sch_htb',
    option: 'CONFIG_NET_SCH_HTB',
    tries: ['tc qdisc add dev trial root handle 1: htb'],
  },
  u32: {
    module: 'cls_u32',
    option: 'CONFIG_NET_CLS_U32',
    tries: [
      'tc qdisc add dev trial root handle 1: htb',
      'tc filter add dev trial parent 1: protocol ip prio 1 u32 match ip dst 192.0.2.1/32 flowid 1:1',
    ],
  },
};

/** Parts of the kernel that a plan's shapes need, each with the first place that asks for it. */
export function kernelNeeds(plan: LabPlan): Need[] {
  const nics = plan.vms.flatMap(({ name, nics: all }) =>
    all.flatMap(({ shape }, index) =>
      shape === null ? [] : [{ part: disciplineOf(shape), by: `NIC ${index} of VM "${name}"` }],
    ),
  );
  const links = plan.hosts.flatMap((host) =>
    shapedTunnels(host).flatMap(({ remote, shape }) =>
      [...LINK_PARTS, disciplineOf(shape!)].map((part) => ({
        part,
        by: `the link from "${host.name}" to "${remote}"`,
      })),
    ),
  );
  const all = [...nics, ...links];
  return all.filter(({ part }, index) => all.findIndex((other) => other.part === part) === index);
}

/** A network namespace that goes with the command, so that the trial leaves nothing. */
async function tryPart({ part, by }: Need, signal: AbortSignal): Promise<void> {
  const { module, option, tries } = parts[part];
  const script = ['set -e', 'ip link add trial type veth peer name other', ...tries].join('\n');
  try {
    await run(['unshare', '--net', 'sh', '-c', script], { signal });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const said = error.stderr.trim().split('\n', 1)[0] ?? '';
    const message = `this kernel has no ${module} (${option}), which the shape of ${by} needs; tc said: ${said}`;
    throw new StaghornError('host-unfit', message, { cause: error });
  }
}

async function hasVhost(): Promise<boolean> {
  return access('/dev/vhost-net').then(
    () => true,
    () => false,
  );
}

/**
 * Finds out what the kernel can do for this lab.
 * @throws StaghornError 'host-unfit' naming what is missing and what asks for it; 'cancelled'
 */
export async function checkKernel(plan: LabPlan, signal: AbortSignal): Promise<{ vhost: boolean }> {
  for (const need of kernelNeeds(plan)) await tryPart(need, signal);
  const vhost = await hasVhost();
  const wanting = plan.vms.find(({ nics }) => nics.some((nic) => nic.vhost === 'on'));
  if (wanting !== undefined && !vhost)
    throw new StaghornError(
      'host-unfit',
      `this kernel has no vhost_net (there is no /dev/vhost-net), which VM "${wanting.name}" needs ("vhost: on")`,
    );
  return { vhost };
}
