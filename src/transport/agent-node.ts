import { StaghornError } from '../errors/index.ts';
import type { HostProbe, NodeFound } from './agent-probe.ts';

/** The oldest Node.js that runs the agent; as `engines` in package.json. */
export const oldestNode = { major: 20, minor: 19 } as const;

/** What is needed to know of the controller's own Node.js, to judge whether it runs on another host. */
export interface LocalNode {
  readonly path: string;
  /** As process.arch. */
  readonly architecture: string;
  /** The GNU C library that it runs under; null under any other. */
  readonly glibcVersion: string | null;
}

/** The Node.js that runs this. */
export function localNode(): LocalNode {
  const { report } = process as { report: NodeJS.ProcessReport & { excludeNetwork?: boolean } };
  // Without this, the report looks up the names of all peers in the DNS, and everything waits for it.
  const before = report.excludeNetwork;
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header?: { glibcVersionRuntime?: string } };
  report.excludeNetwork = before;
  return {
    path: process.execPath,
    architecture: process.arch,
    glibcVersion: header?.glibcVersionRuntime ?? null,
  };
}

export type NodeChoice =
  { readonly kind: 'host'; readonly path: string } | { readonly kind: 'upload'; readonly path: string };

/**
 * The host's own Node.js if one is new enough, else the controller's if it would run there.
 * @throws StaghornError 'host-unfit' that says what to install
 */
export function chooseNode(host: string, probe: HostProbe, local: () => LocalNode): NodeChoice {
  const fitting = probe.nodes.find(isNewEnough);
  if (fitting !== undefined) return { kind: 'host', path: fitting.path };
  const own = local();
  const obstacle = uploadObstacle(probe, own);
  if (obstacle === undefined) return { kind: 'upload', path: own.path };
  const found = probe.nodes.map(({ path, version }) => `${path} is ${version}`).join(', ') || 'it has none';
  const { major, minor } = oldestNode;
  const text =
    `host ${host} has no Node.js ${major}.${minor} or newer (${found}), and the controller's cannot be sent there: ` +
    `${obstacle}. Install Node.js ${major}.${minor} or newer there, or name the path of one`;
  throw new StaghornError('host-unfit', text, { context: { host } });
}

function isNewEnough({ version }: NodeFound): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > oldestNode.major || (major === oldestNode.major && minor >= oldestNode.minor);
}

// process.arch of Node.js to `uname -m` of Linux.
const machines: Readonly<Record<string, readonly string[]>> = {
  x64: ['x86_64'],
  arm64: ['aarch64'],
  arm: ['armv7l'],
  ppc64: ['ppc64le'],
  s390x: ['s390x'],
  riscv64: ['riscv64'],
  loong64: ['loongarch64'],
};

function uploadObstacle(probe: HostProbe, local: LocalNode): string | undefined {
  if (probe.system !== 'Linux') return `the host runs ${probe.system}`;
  const fits = machines[local.architecture]?.includes(probe.machine) ?? false;
  if (!fits) return `the host is ${probe.machine}, the controller ${local.architecture}`;
  if (local.glibcVersion === null) return 'the controller does not run under the GNU C library';
  if (probe.glibcVersion === null) return 'the host does not run the GNU C library';
  // A program runs under the library it was started with, or a newer one.
  if (compare(probe.glibcVersion, local.glibcVersion) < 0) {
    return `the host has glibc ${probe.glibcVersion}, the controller ${local.glibcVersion}`;
  }
  return undefined;
}

function compare(one: string, other: string): number {
  const [major = 0, minor = 0] = one.split('.').map(Number);
  const [otherMajor = 0, otherMinor = 0] = other.split('.').map(Number);
  return major - otherMajor || minor - otherMinor;
}
