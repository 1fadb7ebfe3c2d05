import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(fileURLToPath(new URL('../..', import.meta.url)));

export const readText = (path: string) => readFileSync(join(root, path), 'utf8');

/** README.md and every manual, by path from the root. */
export function manuals(): string[] {
  const below = readdirSync(join(root, 'docs'), { recursive: true, withFileTypes: true });
  return [
    'README.md',
    ...below
      .filter((entry) => entry.isFile() && entry.name.endsWith('.md'))
      .map((entry) => relative(root, join(entry.parentPath, entry.name))),
  ];
}

export interface Link {
  /** From the root of the repository. */
  readonly path: string;
  /** After "#"; null if there is none. */
  readonly anchor: string | null;
}

/** The links of a manual that lead to files of the repository. */
export function relativeLinks(manual: string): Link[] {
  const text = readText(manual).replaceAll(/^```[\s\S]*?^```/gm, '');
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => {
      const [path = '', anchor = null] = target.split('#');
      return { path: path === '' ? manual : join(dirname(manual), path), anchor };
    });
}

/** The anchors that headings make: lower case, without punctuation, "-" for spaces (as GitHub does). */
export function anchors(manual: string): string[] {
  const text = readText(manual).replaceAll(/^```[\s\S]*?^```/gm, '');
  return [...text.matchAll(/^#+ +(.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

/** The code of a manual: fenced blocks line by line, and code in the text. */
export function codeLines(manual: string): string[] {
  const text = readText(manual);
  const blocks = [...text.matchAll(/^```\w*\n([\s\S]*?)^```/gm)].flatMap(([, block = '']) =>
    block.split('\n'),
  );
  const inline = [...text.replaceAll(/^```[\s\S]*?^```/gm, '').matchAll(/`([^`\n]+)`/g)].map(
    ([, code = '']) => code,
  );
  return [...blocks, ...inline];
}
