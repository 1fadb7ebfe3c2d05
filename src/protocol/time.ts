/** Where time comes from: the machine's clock and timers, or a simulation's. */
export interface Time {
  /** CLOCK_MONOTONIC, or what stands in for it. */
  nowNs(): bigint;
  /** Calls back once, after so long; @returns how to keep it from that. */
  after(delayMs: number, callback: () => void): () => void;
}

export const systemTime: Time = {
  nowNs: () => process.hrtime.bigint(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

/** Calls back again and again, each time so long after the last; @returns how to end it. */
export function every(time: Time, periodMs: number, callback: () => void): () => void {
  let cancel = () => {};
  const again = () => {
    cancel = time.after(periodMs, () => {
      again();
      callback();
    });
  };
  again();
  return () => cancel();
}
