/**
 * What QEMU calls an image: a path, or `json:` where its options do not follow from a path (bdrv_refresh_filename
 * in QEMU's block.c).
 */
export type FileName = { readonly path: string } | { readonly obstacle: string };

export function parseFileName(name: string): FileName {
  if (name.startsWith('json:')) return parseOptions(name);
  if (name.startsWith('file:')) return { path: name.slice('file:'.length).replace(/^\/\/(?=\/)/, '') };
  const protocol = /^([a-z][a-z0-9+.-]*):/i.exec(name)?.[1];
  return protocol === undefined ? { path: name } : { obstacle: `is reached by ${protocol}, and is no file` };
}

interface Options {
  readonly driver?: string;
  readonly filename?: string;
  readonly file?: Options;
}

function parseOptions(name: string): FileName {
  let options: Options;
  try {
    options = JSON.parse(name.slice('json:'.length)) as Options;
  } catch {
    return { obstacle: 'has a name that QEMU cut short' };
  }
  if (options.driver === 'raw' && ('offset' in options || 'size' in options))
    return { obstacle: 'is a part of a file (offset, size)' };
  const file = options.file ?? options;
  if (file.driver !== 'file' || typeof file.filename !== 'string')
    return { obstacle: `is reached by ${file.driver ?? 'a driver that is not told'}, and is no file` };
  return { path: file.filename };
}
