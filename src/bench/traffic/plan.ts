/** What an endpoint sends, and who must get it. */
export interface FlowPlan {
  /** 0 to 4095, one flow of the whole network. */
  readonly id: number;
  readonly toMac: string;
  /** Names of all endpoints that must get every frame of it. */
  readonly recipients: readonly string[];
  readonly ratePerSecond: number;
  /** By default frames come as a Poisson process; paced ones come at even intervals. */
  readonly paced?: boolean | undefined;
  /** Sizes are evenly distributed between these, tags not counted: 46 (86 with `gsoBytes`) to 65,549. */
  readonly minBytes: number;
  readonly maxBytes: number;
  /** By default 0x88b6, local experimental EtherType 2. */
  readonly etherType?: number | undefined;
  /** As the sender puts them on, the outer one first: "88a8:100". */
  readonly tags?: readonly string[] | undefined;
  /** As they must come out; by default as they went in. */
  readonly tagsAtRecipients?: readonly string[] | undefined;
  /** Frames are TCP over IPv4, left to be segmented at this size; needs `vnetHeaderBytes`. */
  readonly gsoBytes?: number | undefined;
  readonly seed?: number | undefined;
}

/** A station that sends and receives frames, and stops and goes on as a VM does. */
export interface EndpointPlan {
  readonly name: string;
  readonly mac: string;
  /** A tap that exists and stays (opened as QEMU does), or a device to use by a packet socket, such as a veth. */
  readonly port: { readonly kind: 'tap' | 'packet'; readonly device: string };
  /** Path of the network namespace it is in; by default the generator's own. */
  readonly namespace?: string | undefined;
  /** Of the virtio-net header in front of each frame in a tap. */
  readonly vnetHeaderBytes?: 0 | 10 | 12 | undefined;
  /** More than one: the tap must have been made with IFF_MULTI_QUEUE. */
  readonly queues?: number | undefined;
  /** Frames that are due within this time are sent together. */
  readonly batchUs?: number | undefined;
  readonly flows: readonly FlowPlan[];
  /** A state that was saved: it goes on from there, with the flows that are in it. */
  readonly restoreFrom?: string | undefined;
}

const yes = (condition: boolean): string => (condition ? '1' : '0');

function words(kind: string, values: Readonly<Record<string, string | number | undefined>>): string {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return [kind, ...given.map(([key, value]) => `${key}=${value}`)].join(' ');
}

function flowLine(flow: FlowPlan): string {
  return words('flow', {
    id: flow.id,
    to: flow.toMac,
    rate: flow.ratePerSecond,
    poisson: yes(flow.paced !== true),
    min: flow.minBytes,
    max: flow.maxBytes,
    type: flow.etherType?.toString(16),
    tags: flow.tags === undefined || flow.tags.length === 0 ? undefined : flow.tags.join(','),
    gso: flow.gsoBytes,
    seed: flow.seed ?? flow.id,
  });
}

/** The lines that `traffic` reads (test/traffic/config.c). */
export function configOf(endpoints: readonly EndpointPlan[], controlOf: (name: string) => string): string {
  const lines = endpoints.flatMap((endpoint) => [
    words('endpoint', {
      name: endpoint.name,
      control: controlOf(endpoint.name),
      mac: endpoint.mac,
      [endpoint.port.kind]: endpoint.port.device,
      netns: endpoint.namespace,
      header: endpoint.vnetHeaderBytes,
      queues: endpoint.queues,
      batch: endpoint.batchUs,
      restore: endpoint.restoreFrom,
    }),
    ...endpoint.flows.map(flowLine),
  ]);
  return `${lines.join('\n')}\n`;
}
