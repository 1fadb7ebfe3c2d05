import { mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { GUEST_CACHE, type GuestImage } from './guest-image.ts';
import { readGuestLines } from './serial-log.ts';
import { until } from './processes.ts';
import type { Accelerator } from './vm.ts';

const TRIAL_MS = 6000;

/**
 * Whether a guest really gets to userspace under KVM. That /dev/kvm opens and firmware runs says little: there are
 * machines where no kernel comes up under it.
 */
async function bootsUnderKvm(image: GuestImage, signal: AbortSignal): Promise<boolean> {
  const work = await mkdtemp(join(GUEST_CACHE, '.trial-'));
  const serial = join(work, 'serial');
  const args = [
    '-M',
    'pc,accel=kvm',
    '-m',
    '128',
    '-nodefaults',
    '-display',
    'none',
    '-vga',
    'none',
    '-no-reboot',
  ];
  const boot = [
    '-kernel',
    image.kernel,
    '-initrd',
    image.initrd,
    '-append',
    'console=ttyS0 quiet panic=-1 sg.name=trial',
  ];
  const child = spawn('qemu-system-x86_64', [...args, ...boot, '-serial', `file:${serial}`], {
    stdio: 'ignore',
  });
  const ended = once(child, 'exit').catch(() => undefined);
  try {
    const booted = async (): Promise<boolean> =>
      (await readGuestLines(serial)).some(({ t }) => t === 'booted') || child.exitCode !== null;
    await until(booted, { timeoutMs: TRIAL_MS, signal });
    return (await readGuestLines(serial)).some(({ t }) => t === 'booted');
  } finally {
    child.kill('SIGKILL');
    await ended;
    await rm(work, { recursive: true, force: true });
  }
}

/** The file's choice; "auto" tries KVM once and remembers the answer until the machine is booted again. */
export async function chooseAccelerator(
  choice: 'auto' | Accelerator,
  image: GuestImage,
  signal: AbortSignal,
): Promise<Accelerator> {
  if (choice !== 'auto') return choice;
  const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  const answerPath = join(GUEST_CACHE, 'accelerator.json');
  const cached = await readFile(answerPath, 'utf8').catch(() => '');
  for (const known of ['kvm', 'tcg'] as const) if (cached === `${boot} ${known}`) return known;
  const opens = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  const answer = opens && (await bootsUnderKvm(image, signal)) ? 'kvm' : 'tcg';
  await writeFile(`${answerPath}.${process.pid}`, `${boot} ${answer}`);
  await rename(`${answerPath}.${process.pid}`, answerPath);
  return answer;
}
