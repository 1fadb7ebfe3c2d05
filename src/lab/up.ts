import { StaghornError } from '../errors/index.ts';
import { chooseAccelerator } from './accelerator.ts';
import { bootVms } from './boot.ts';
import { removeLab } from './down.ts';
import { guestCommandLine } from './guest-command-line.ts';
import { measureTscKhz, prepareGuestImages, type GuestImages } from './guest-image.ts';
import { checkKernel } from './kernel-check.ts';
import { runInHost, startHost } from './host.ts';
import { writeAccess } from './host-access.ts';
import { labPaths, serialLog } from './paths.ts';
import { planLab, type HostPlan, type LabPlan } from './plan.ts';
import { claimLab, writeRecord, type LabRecord } from './record.ts';
import type { LabFile } from './schema.ts';
import { shapedDevices } from './shaped-devices.ts';
import { switchCommands } from './switches.ts';
import { refuseClash, wireLab } from './wiring.ts';

export interface LabProgress {
  readonly step: 'guest' | 'network' | 'host' | 'boot' | 'ready';
  readonly detail: string;
}

export interface LabUpOptions {
  readonly onProgress?: (progress: LabProgress) => void;
  readonly signal?: AbortSignal;
}

/** A lab that is up, and what a controller needs to use it. */
export interface Lab {
  readonly name: string;
  readonly stateDirectory: string;
  /** `{name, hosts: [{name, ssh, sshConfig}]}`. */
  readonly experimentFile: string;
  readonly sshConfig: string;
  readonly knownHosts: string;
  readonly hosts: readonly { readonly name: string; readonly address: string; readonly namespace: string }[];
  readonly vms: readonly { readonly name: string; readonly host: string; readonly serialLog: string }[];
}

export function describeLab(record: LabRecord): Lab {
  const paths = labPaths(record.name);
  return {
    name: record.name,
    stateDirectory: paths.root,
    experimentFile: paths.experiment,
    sshConfig: paths.sshConfig,
    knownHosts: paths.knownHosts,
    hosts: record.hosts.map(({ name, managementAddress, namespace }) => ({
      name,
      address: managementAddress.split('/', 1)[0]!,
      namespace,
    })),
    vms: record.vms.map(({ name, host }) => ({ name, host, serialLog: serialLog(record.name, host, name) })),
  };
}

function recordOf(plan: LabPlan): Omit<LabRecord, 'version' | 'phase' | 'maker'> {
  return {
    name: plan.name,
    managementSubnet: plan.management.subnet,
    managementBridge: plan.management.bridge,
    managementLinks: plan.hosts.map(({ managementLink }) => managementLink),
    wireNamespace: plan.wireNamespace,
    hosts: plan.hosts.map(({ name, namespace, managementAddress }) => ({
      name,
      namespace,
      managementAddress,
    })),
    vms: plan.vms.map(({ name, host }) => ({ name, host })),
    shaped: shapedDevices(plan),
  };
}

async function bringUpHost(lab: string, host: HostPlan, signal: AbortSignal): Promise<void> {
  await startHost(lab, host, signal);
  for (const command of switchCommands(host)) await runInHost({ lab, host: host.name }, command, { signal });
}

interface Making {
  readonly plan: LabPlan;
  readonly images: GuestImages;
  readonly vhost: boolean;
  readonly signal: AbortSignal;
  readonly progress: (step: LabProgress['step'], detail: string) => void;
}

async function make({ plan, images, vhost, signal, progress }: Making): Promise<void> {
  progress('network', `management ${plan.management.subnet}, ${plan.hosts.length} hosts`);
  await wireLab(plan, signal);
  await writeAccess(plan, signal);
  const startOne = async (host: HostPlan): Promise<void> => {
    await bringUpHost(plan.name, host, signal);
    progress('host', `${host.name} at ${host.managementAddress.split('/', 1)[0]}`);
  };
  await Promise.all(plan.hosts.map(startOne));
  const accelerator = await chooseAccelerator(plan.accelerator, images.cloud, signal);
  progress('boot', `${plan.vms.length} VMs under ${accelerator}`);
  const machine = { accelerator, tscKhz: await measureTscKhz(images.cloud, signal), vhost, images };
  await bootVms({ plan, machine, signal, onReady: ({ name }) => progress('ready', name) });
}

/**
 * Brings a lab up; done when every guest has heard all of its peers. If that fails, nothing of it is left.
 * @throws StaghornError 'conflict' if the lab or its subnet is in use; 'invalid-input'; 'host-unfit'; 'vm-failed' with
 * the end of the guest's serial log; 'cancelled'
 */
export async function labUp(file: LabFile, options: LabUpOptions = {}): Promise<Lab> {
  const plan = planLab(file);
  // Refuses too many peers before anything is made.
  plan.vms.forEach((vm) => guestCommandLine(vm, Number.MAX_SAFE_INTEGER));
  // One failure stops whatever else is still being made before the lab is taken down again.
  const failed = new AbortController();
  const signal = AbortSignal.any([failed.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  const progress: Making['progress'] = (step, detail) => options.onProgress?.({ step, detail });
  if (process.getuid?.() !== 0)
    throw new StaghornError('privilege-missing', 'a lab needs root on this machine');
  const { vhost } = await checkKernel(plan, signal);
  const record = await claimLab(recordOf(plan));
  try {
    await refuseClash(plan, signal);
    progress('guest', 'kernel and initial RAM disk');
    const images = await prepareGuestImages(
      plan.vms.map(({ kernel }) => kernel),
      signal,
    );
    await make({ plan, images, vhost, signal, progress });
    await writeRecord({ ...record, phase: 'up' });
  } catch (error) {
    failed.abort();
    await removeLab(record);
    if (options.signal?.aborted === true)
      throw new StaghornError('cancelled', 'bringing the lab up was cancelled');
    throw error;
  }
  return describeLab(record);
}
