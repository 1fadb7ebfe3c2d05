import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Readable, Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';

import { runCli } from '../../src/cli/program.ts';
import { realParts } from '../../src/cli/real-parts.ts';
import { Metrics } from '../../src/controller/metrics.ts';
import { anchors, codeLines, manuals, readText, relativeLinks, root } from './markdown.ts';

/** What `staghorn WORDS --help` prints: of an unknown word it is the help of what stands before it. */
async function helpOf(words: readonly string[]): Promise<string> {
  let text = '';
  const stdout = new Writable({
    write(chunk: Buffer, _encoding, done) {
      text += chunk.toString();
      done();
    },
  });
  const stderr = new Writable({ write: (_chunk, _encoding, done) => done() });
  const terminal = {
    stdin: Readable.from([]),
    stdout,
    stderr,
    env: {},
    interactive: false,
    onSignal: () => () => undefined,
  };
  await runCli([...words, '--help'], terminal, realParts);
  return text;
}

interface Mention {
  /** All words up to the end of the command. */
  readonly words: readonly string[];
  readonly line: string;
}

/** Every `staghorn word …` of a manual. */
function mentions(manual: string): Mention[] {
  return codeLines(manual).flatMap((line) =>
    [...line.matchAll(/(?:^|[\s(/])staghorn +([a-z][^&;#\n]*)/g)].map(([, rest = '']) => ({
      words: rest.trim().split(/\s+/),
      line,
    })),
  );
}

/** What is wrong with a mention of a command, or null. */
async function findProblem({ words, line }: Mention): Promise<string | null> {
  const [command = '', second = ''] = words;
  const help = await helpOf([command]);
  if (!help.startsWith(`Usage: staghorn ${command} `)) return `"${line}": there is no command ${command}`;
  const isGroup = /^Commands:/m.test(help);
  if (isGroup && second === '') return null;
  const full = isGroup ? `${command} ${second}` : command;
  const own = isGroup ? await helpOf([command, second]) : help;
  if (!own.startsWith(`Usage: staghorn ${full} `)) return `"${line}": there is no command ${full}`;
  const unknown = words.find((word) => /^--[a-z]/.test(word) && !own.includes(word));
  return unknown === undefined ? null : `"${line}": ${full} knows no ${unknown}`;
}

describe('docs/metrics.md', () => {
  it('has an entry for each metric that is registered, and no other', () => {
    const { registry } = new Metrics({ experiments: () => 0, operationsRunning: () => 0 });
    const registered = registry.getMetricsAsArray().map(({ name }) => name);
    const described = [...readText('docs/metrics.md').matchAll(/^\| `(staghorn_[a-z_]+)` /gm)].map(
      ([, name]) => name,
    );
    expect(registered.length).toBeGreaterThan(3);
    expect(described.sort()).toEqual(registered.sort());
  });
});

describe.each(manuals())('%s', (manual) => {
  it('links to files and headings that exist', () => {
    const broken = relativeLinks(manual).filter(({ path, anchor }) => {
      if (!existsSync(join(root, path))) return true;
      return anchor !== null && path.endsWith('.md') && !anchors(path).includes(anchor);
    });
    expect(broken).toEqual([]);
  });
});

describe('README.md', () => {
  it('mentions only scripts that package.json has', () => {
    const { scripts } = JSON.parse(readText('package.json')) as { scripts: Record<string, string> };
    const named = codeLines('README.md').flatMap((line) =>
      [...line.matchAll(/\bnpm (?:run )?([a-z][\w:-]*)/g)].map(([, name = '']) => name),
    );
    expect(named).toEqual(expect.arrayContaining(['demo', 'test', 'setup']));
    expect(named.filter((name) => !(name in scripts))).toEqual([]);
  });
});

describe.each([
  ['README.md', 10],
  ['docs/operations.md', 5],
  ['docs/lab.md', 3],
  ['docs/errors.md', 5],
])('%s', (manual, atLeast) => {
  it('mentions only commands and options that the command line has', async () => {
    const found = mentions(manual);
    expect(found.length).toBeGreaterThanOrEqual(atLeast);
    const problems = await Promise.all(found.map(findProblem));
    expect(problems.filter((problem) => problem !== null)).toEqual([]);
  });
});
