import { OvsdbError } from './errors.ts';

export interface WaitOptions {
  readonly signal?: AbortSignal | undefined;
  /** Infinity, or left out: no limit. */
  readonly timeoutMs?: number | undefined;
}

export interface WaiterOptions extends WaitOptions {
  /** What is waited for, for error messages: "transact". */
  readonly what: string;
  /** Called once, however it ends. */
  readonly onSettled?: (() => void) | undefined;
}

const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * A promise that is settled from outside, or by its deadline, or by an AbortSignal; it gives up timer and listener
 * however it ends. A rejection that nobody looks at does not end the process: a request that was given up
 * may rightly never be awaited.
 */
export class Waiter<T> {
  readonly promise: Promise<T>;
  readonly #options: WaiterOptions;
  readonly #onAbort: () => void;
  #resolve: (value: T) => void = () => undefined;
  #reject: (error: OvsdbError) => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #settled = false;

  constructor(options: WaiterOptions) {
    this.#options = options;
    this.promise = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.promise.catch(() => undefined);
    const { signal, timeoutMs = Infinity, what } = options;
    this.#onAbort = (): void => {
      this.reject(new OvsdbError('aborted', `${what}: aborted`, { cause: signal?.reason }));
    };
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (signal?.aborted === true) this.#onAbort();
    else if (timeoutMs <= MAX_TIMER_MS) this.#startTimer(timeoutMs);
  }

  get settled(): boolean {
    return this.#settled;
  }

  resolve(value: T): void {
    if (this.#settle()) this.#resolve(value);
  }

  reject(error: OvsdbError): void {
    if (this.#settle()) this.#reject(error);
  }

  #startTimer(timeoutMs: number): void {
    const { what } = this.#options;
    this.#timer = setTimeout(() => {
      this.reject(new OvsdbError('timeout', `${what}: nothing within ${timeoutMs} ms`));
    }, timeoutMs);
  }

  #settle(): boolean {
    if (this.#settled) return false;
    this.#settled = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#options.onSettled?.();
    return true;
  }
}
