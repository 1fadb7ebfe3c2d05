import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A system user for one test file, with a home of its own. */
export class TestUser {
  readonly name: string;
  readonly home: string;
  readonly uid: number;
  readonly gid: number;

  constructor(directory: string) {
    this.name = `stag${process.pid}`;
    this.home = join(directory, this.name);
    // "*" and not "!": without PAM, sshd takes the latter for a locked account.
    execFileSync('useradd', ['-M', '-d', this.home, '-s', '/bin/sh', '-p', '*', this.name]);
    const id = (flag: string) => Number(execFileSync('id', [flag, this.name], { encoding: 'utf8' }));
    this.uid = id('-u');
    this.gid = id('-g');
    mkdirSync(this.home);
    chownSync(this.home, this.uid, this.gid);
  }

  remove(): void {
    execFileSync('userdel', [this.name], { stdio: 'ignore' });
  }

  /**
   * A directory with a `sudo` that makes this user root, by a setuid copy of setpriv(1) that only the user's group
   * may run. It stands in for the real one, which the machine may not have and whose sudoers a test must not touch.
   */
  grantingSudo(directory: string): string {
    const bin = join(directory, 'sudo-grants');
    mkdirSync(bin);
    const setpriv = join(bin, 'become-root');
    copyFileSync('/usr/bin/setpriv', setpriv);
    chownSync(setpriv, 0, this.gid);
    chmodSync(setpriv, 0o4750);
    const script = `#!/bin/sh\n[ "$1" = -n ] || exit 9\nshift\nexec ${setpriv} --reuid=0 --regid=0 --clear-groups -- "$@"\n`;
    writeFileSync(join(bin, 'sudo'), script, { mode: 0o755 });
    return bin;
  }

  /** A directory with a `sudo` that refuses as the real one does when a password is needed. */
  refusingSudo(directory: string): string {
    const bin = join(directory, 'sudo-refuses');
    mkdirSync(bin);
    writeFileSync(join(bin, 'sudo'), '#!/bin/sh\necho "sudo: a password is required" >&2\nexit 1\n', {
      mode: 0o755,
    });
    return bin;
  }
}
