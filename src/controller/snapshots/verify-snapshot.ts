import type { VerifyResult } from '../../protocol/resources.ts';
import type { StoredSnapshot } from '../catalog/catalog.ts';
import type { Experiments } from '../experiments.ts';

const verifyTimeoutMs = 30 * 60_000;

/** Has every host check its part; what is damaged is a result, not an error. */
export async function verifySnapshot(
  experiments: Experiments,
  { snapshot, manifests }: StoredSnapshot,
  signal: AbortSignal,
): Promise<VerifyResult> {
  const hosts = await experiments.connect(snapshot.experiment, new Set(Object.keys(manifests)));
  const results = await Promise.all(
    hosts.map(async ({ name, link }) => {
      const params = { snapshot: snapshot.id, manifestSha256: manifests[name] ?? null };
      const { bytes, problems } = await link.call('verify', params, verifyTimeoutMs, signal);
      return { bytes, problems: problems.map((problem) => `host ${name}: ${problem}`) };
    }),
  );
  const problems = results.flatMap((result) => result.problems);
  const bytes = results.reduce((sum, result) => sum + result.bytes, 0);
  return { snapshot: snapshot.id, ok: problems.length === 0, bytes, problems };
}
