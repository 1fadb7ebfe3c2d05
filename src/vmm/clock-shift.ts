import { StaghornError } from '../errors/index.ts';
import { all, parseParameters, type CommandOption } from './command-line.ts';
import { findSection } from './state-sections.ts';

/** How far a VM's clocks are moved while it stands still, in nanoseconds. */
export interface ClockShift {
  /** What every guest's clock follows: QEMU_CLOCK_VIRTUAL, the TSC, kvm-clock. It never goes back. */
  readonly virtualNs: bigint;
  /** The instant at which an RTC that follows the host's clock believes that it was set: later hides time from it. */
  readonly rtcSetNs: bigint;
}

/** Since the VM's stop, and what restores before had hidden from it already. */
export interface Gap {
  readonly elapsedNs: bigint;
  readonly hiddenNs: bigint;
}

/** Hidden: only an RTC that follows the host would tell. Advance: the guest is set to now, whatever was hidden before. */
export function planClockShift(mode: 'hidden' | 'advance', { elapsedNs, hiddenNs }: Gap): ClockShift {
  return mode === 'hidden'
    ? { virtualNs: 0n, rtcSetNs: elapsedNs }
    : { virtualNs: elapsedNs + hiddenNs, rtcSetNs: -hiddenNs };
}

/** Whether the emulated RTC follows the host's CLOCK_REALTIME, which is QEMU's default (qemu(1), -rtc). */
export function rtcFollowsHost(options: readonly CommandOption[]): boolean {
  const clocks = all(options, 'rtc').flatMap((value) => parseParameters(value, 'base').get('clock') ?? []);
  return (clocks.at(-1) ?? 'host') === 'host';
}

/**
 * Moves the clocks in a device state. @returns a new state
 * @throws StaghornError 'snapshot-unfit' if the state has no clock that could be moved
 */
export function shiftClocks(state: Buffer, shift: ClockShift, options: readonly CommandOption[]): Buffer {
  const shifted = Buffer.from(state);
  if (shift.virtualNs !== 0n) shiftVirtualClock(shifted, shift.virtualNs);
  if (shift.rtcSetNs !== 0n && rtcFollowsHost(options)) shiftRtc(shifted, shift.rtcSetNs);
  return shifted;
}

/**
 * QEMU's clock and ticks of a stopped VM (QEMU softmmu/cpu-timers.c, vmstate_timers): cpu_ticks_offset, 8 unused bytes,
 * cpu_clock_offset. Both counted from 0 when the VM first ran, so their ratio is the exact rate of its TSC.
 */
function shiftVirtualClock(state: Buffer, byNs: bigint): void {
  const timers = findSection(state, 'timer', 24);
  const clockNs = timers === null ? 0n : state.readBigInt64BE(timers.offset + 16);
  if (timers === null || clockNs <= 0n)
    throw new StaghornError('snapshot-unfit', 'the device state holds no clock that can be set to now');
  const ticks = state.readBigInt64BE(timers.offset);
  state.writeBigInt64BE(ticks + (ticks * byNs) / clockNs, timers.offset);
  state.writeBigInt64BE(clockNs + byNs, timers.offset + 16);
  // Under KVM the guest's clock is the kernel's (QEMU hw/i386/kvm/clock.c, kvmclock_vmsd).
  const kvmClock = findSection(state, 'kvmclock', 8);
  if (kvmClock !== null)
    state.writeBigUInt64BE(state.readBigUInt64BE(kvmClock.offset) + byNs, kvmClock.offset);
}

/** Version 3 of vmstate_rtc (QEMU hw/rtc/mc146818rtc.c): instants on the clock that it follows. */
const rtcBytes = 245;
const rtcLastUpdate = 213;
/** periodic_timer, next_periodic_time, update_timer, next_alarm_time; −1 or 0: none is due. */
const rtcTimers = [157, 165, 229, 237];

/** A machine without this RTC has nothing to hide. */
function shiftRtc(state: Buffer, byNs: bigint): void {
  const rtc = findSection(state, 'mc146818rtc', rtcBytes);
  if (rtc?.version !== 3) return;
  const move = (at: number) => state.writeBigInt64BE(state.readBigInt64BE(at) + byNs, at);
  move(rtc.offset + rtcLastUpdate);
  for (const timer of rtcTimers) {
    if (state.readBigInt64BE(rtc.offset + timer) > 0n) move(rtc.offset + timer);
  }
}
