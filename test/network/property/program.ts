import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { mutationPlugin, type Mutation } from '../../mutation.ts';

/** host-process.ts as one file that Node runs, beside the addon. */
export class HostProgram {
  readonly path: string;
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
    this.path = join(folder, 'host.mjs');
  }

  /** @param mutation a mistake that it is to make */
  static async compile(mutation?: Mutation): Promise<HostProgram> {
    const plugins = mutation === undefined ? [] : [await mutationPlugin(mutation)];
    const program = new HostProgram(mkdtempSync(join(tmpdir(), 'staghorn-property-host-')));
    await build({
      entryPoints: ['test/network/property/host-process.ts'],
      outfile: program.path,
      bundle: true,
      platform: 'node',
      format: 'esm',
      packages: 'external',
      plugins,
    });
    symlinkSync(join(process.cwd(), 'build/Release/staghorn.node'), join(program.#folder, 'staghorn.node'));
    symlinkSync(join(process.cwd(), 'node_modules'), join(program.#folder, 'node_modules'));
    return program;
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true });
  }
}
