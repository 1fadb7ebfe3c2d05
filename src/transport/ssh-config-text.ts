import { readFileSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { StaghornError, messageOf } from '../errors/index.ts';
import { transportLimits } from './limits.ts';

/**
 * The text of ssh_config(5) as ssh would read it, with every Include in its place: `configFile` alone if given (as
 * `ssh -F`), else the user's file and then the system's. A file that is missing counts as empty unless it was named.
 * @throws StaghornError 'invalid-input' if the named file cannot be read
 */
export function readSshConfigText(configFile: string | undefined, home = homedir()): string {
  const userDirectory = join(home, '.ssh');
  if (configFile !== undefined) return expand(readNamed(configFile), userDirectory, home, 0);
  const user = readOptional(join(userDirectory, 'config'));
  const system = readOptional('/etc/ssh/ssh_config');
  // "Match all" ends the last section of the file before.
  return `${expand(user, userDirectory, home, 0)}\nMatch all\n${expand(system, '/etc/ssh', home, 0)}`;
}

/**
 * ssh-config 5 keeps Include as a plain line. Sections of an included file end with it, so the section around the
 * Include is opened again after it.
 */
function expand(text: string, directory: string, home: string, depth: number): string {
  if (depth > transportLimits.maxSshConfigDepth) {
    throw new StaghornError(
      'invalid-input',
      `Include in ssh_config goes deeper than ${transportLimits.maxSshConfigDepth} files`,
    );
  }
  let section = 'Match all';
  const lines = text.split(/\r?\n/).map((line) => {
    if (/^\s*(host|match)[\s=]/i.test(line)) section = line;
    const patterns = /^\s*include(?:\s*=\s*|\s+)(.+)$/i.exec(line)?.[1];
    if (patterns === undefined) return line;
    const included = words(patterns)
      .flatMap((pattern) => matchingFiles(resolvePath(pattern, directory, home)))
      .map((file) => `${section}\n${expand(readOptional(file), directory, home, depth + 1)}`);
    return [...included, section].join('\n');
  });
  return lines.join('\n');
}

function words(text: string): string[] {
  return [...text.matchAll(/"([^"]*)"|(\S+)/g)].map((match) => match[1] ?? match[2] ?? '');
}

function resolvePath(path: string, directory: string, home: string): string {
  if (path === '~' || path.startsWith('~/')) return join(home, path.slice(1));
  return isAbsolute(path) ? path : join(directory, path);
}

// glob(7) in the last part of the path, where configuration directories have it.
function matchingFiles(path: string): string[] {
  const pattern = basename(path);
  if (!/[*?]/.test(pattern)) return [path];
  const source = pattern
    .replace(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  const expression = new RegExp(`^(?![.])${source}$`);
  try {
    const names = readdirSync(dirname(path)).filter((name) => expression.test(name));
    return names.sort().map((name) => join(dirname(path), name));
  } catch {
    return [];
  }
}

function readOptional(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

function readNamed(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new StaghornError('invalid-input', `cannot read the ssh_config file ${file}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
