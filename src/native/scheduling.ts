import { loadAddon } from './addon.ts';

const addon = loadAddon() as { setRealtimePriority(priority: number): boolean };

/** Below the barrier's own threads, above everything ordinary (sched(7)). */
const eventLoopPriority = 1;

/**
 * Gives the thread of the event loop real-time priority while time stands still: every VM waits for it, and beside
 * busy guests an ordinary thread waits milliseconds for its turn. It sleeps whenever there is nothing to do.
 * @returns how to end it; does nothing where the kernel refuses (CAP_SYS_NICE, RLIMIT_RTPRIO)
 */
export function hurryEventLoop(): () => void {
  if (!addon.setRealtimePriority(eventLoopPriority)) return () => undefined;
  return () => {
    addon.setRealtimePriority(0);
  };
}
