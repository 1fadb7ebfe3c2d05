import { z } from 'zod';
import { StaghornError } from '../errors/index.ts';
import { shapedTunnels, UNDERLAY_PORT } from './link-shaping.ts';
import type { LabPlan } from './plan.ts';
import { describeShape, disciplineOf } from './shaping.ts';

/** A queueing discipline of a lab: where it is, on what, and what it does. */
export const shapedDeviceSchema = z.strictObject({
  host: z.string(),
  device: z.string(),
  /** "VM d", or "link to h2 (br-int)". */
  towards: z.string(),
  discipline: z.enum(['netem', 'tbf']),
  shape: z.string(),
});
export type ShapedDevice = z.infer<typeof shapedDeviceSchema>;

/** Everything that is shaped in a lab, by its plan. */
export function shapedDevices(plan: LabPlan): ShapedDevice[] {
  const nics = plan.vms.flatMap(({ name, host, nics: all }) =>
    all.flatMap(({ tap, shape }) =>
      shape === null ? [] : [{ host, device: tap, towards: `VM ${name}`, ...words(shape) }],
    ),
  );
  const links = plan.hosts.flatMap((host) =>
    shapedTunnels(host).map(({ remote, switch: bridge, shape }) => ({
      ...{ host: host.name, device: UNDERLAY_PORT, towards: `link to ${remote} (${bridge})` },
      ...words(shape!),
    })),
  );
  return [...nics, ...links];
}

function words(shape: Parameters<typeof describeShape>[0]): Pick<ShapedDevice, 'discipline' | 'shape'> {
  return { discipline: disciplineOf(shape), shape: describeShape(shape) };
}

const qdiscs = z.array(z.object({ kind: z.string(), dev: z.string() }));

/** How many queueing disciplines of each kind a device has, out of `tc -json qdisc show`. */
function countQdiscs(json: string, device: string, kind: string): number {
  const parsed = qdiscs.safeParse(JSON.parse(json === '' ? '[]' : json));
  if (!parsed.success)
    throw new StaghornError('internal', `tc printed something else: ${json.slice(0, 200)}`);
  return parsed.data.filter((one) => one.dev === device && one.kind === kind).length;
}

/** Whether each is really there, by what tc prints of its host; several links share a device. */
export function inPlace(devices: readonly ShapedDevice[], json: string): boolean[] {
  return devices.map(({ device, discipline }) => {
    const wanted = devices.filter((one) => one.device === device && one.discipline === discipline).length;
    return countQdiscs(json, device, discipline) >= wanted;
  });
}
