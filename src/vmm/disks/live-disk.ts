import type { BlockDevice, BlockImage } from '../../qmp/commands.ts';
import type { DiskKey } from './drive-options.ts';
import { parseFileName } from './file-name.ts';
import { besideImage, resolveOpenFile, type OpenFile, type ResolvedFile } from './open-files.ts';

/** One image of a running VM's disk. */
export interface LiveImage {
  /** What QEMU calls it. */
  readonly name: string;
  /** Absolute. */
  readonly path: string;
  readonly format: string;
  readonly file: OpenFile;
  /** Its header does not name the image below: that was told on the command line, or QEMU put it there. */
  readonly unlinked: boolean;
}

/** A disk of a running VM. */
export interface LiveDisk extends DiskKey {
  /** The node that its device reads and writes. */
  readonly node: string;
  readonly readOnly: boolean;
  readonly virtualBytes: number;
  readonly cache: { readonly direct: boolean; readonly noFlush: boolean };
  readonly detectZeroes: 'off' | 'on' | 'unmap';
  /** From the top to the base; empty: no medium. */
  readonly chain: readonly LiveImage[];
}

/** What holds an image in a file, of which an overlay can be made; filters and protocols are none. */
const formats = new Set('raw file qcow2 qcow qed vmdk vdi vhdx vpc parallels bochs cloop dmg'.split(' '));

export interface ChainSurroundings {
  readonly cwd: string;
  readonly files: readonly OpenFile[];
}

/** Every image of a disk, or in words why a snapshot cannot keep it. */
export async function readChain(
  inserted: NonNullable<BlockDevice['inserted']>,
  surroundings: ChainSurroundings,
): Promise<LiveImage[] | string> {
  const found: { image: BlockImage; resolved: ResolvedFile }[] = [];
  for (
    let image: BlockImage | undefined = inserted.image;
    image !== undefined;
    image = image['backing-image']
  ) {
    const obstacle = formatObstacle(image);
    if (obstacle !== null) return obstacle;
    const name = parseFileName(image.filename);
    if ('obstacle' in name) return `image ${image.filename} ${name.obstacle}`;
    const resolved = await resolveOpenFile(name.path, surroundings.cwd, surroundings.files);
    if (resolved === null) return `image ${name.path} is not a regular file that QEMU has open`;
    found.push({ image, resolved });
  }
  return Promise.all(
    found.map(async ({ image, resolved }, index) => ({
      name: image.filename,
      path: resolved.path,
      format: image.format === 'file' ? 'raw' : image.format,
      file: resolved.file,
      unlinked: await isUnlinked(image, resolved.path, found[index + 1]?.resolved, surroundings),
    })),
  );
}

function formatObstacle(image: BlockImage): string | null {
  const { filename, format } = image;
  if (image.encrypted === true || format === 'luks') return `image ${filename} is encrypted`;
  if (!formats.has(format))
    return `image ${filename} is behind a block driver (${format}) that is no image format`;
  const data = image['format-specific']?.data;
  return data?.['data-file'] === undefined ? null : `image ${filename} keeps its data in another file`;
}

async function isUnlinked(
  image: BlockImage,
  path: string,
  below: ResolvedFile | undefined,
  { files }: ChainSurroundings,
): Promise<boolean> {
  if (below === undefined) return false;
  if (below.file.deleted) return true;
  const named = image['backing-filename'];
  if (named === undefined) return true;
  const name = parseFileName(named);
  if ('obstacle' in name) return true;
  const resolved = await resolveOpenFile(besideImage(path, name.path), '/', files);
  return resolved?.file.identity !== below.file.identity;
}
