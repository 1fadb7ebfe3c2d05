import { QmpError } from './errors.ts';

export interface WaitOptions {
  readonly signal?: AbortSignal | undefined;
  /** Infinity, or left out: no limit. */
  readonly timeoutMs?: number | undefined;
}

export interface WaiterOptions extends WaitOptions {
  /** What is waited for, for error messages: "stop". */
  readonly what: string;
  /** The error of a time-out, where 'timeout' says too little. */
  readonly timeoutError?: (() => QmpError) | undefined;
  /** Called once, however it ends. */
  readonly onSettled?: (() => void) | undefined;
}

const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * A promise that is settled from outside, or by its deadline, or by an AbortSignal; it gives up timer and listener
 * however it ends. A rejection that nobody looks at does not end the process: a prepared command or a registered
 * event may rightly never be awaited.
 */
export class Waiter<T> {
  readonly promise: Promise<T>;
  readonly #options: WaiterOptions;
  readonly #onAbort: () => void;
  #resolve: (value: T) => void = () => undefined;
  #reject: (error: QmpError) => void = () => undefined;
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
      this.reject(new QmpError('aborted', `${what}: aborted`, { cause: signal?.reason }));
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

  reject(error: QmpError): void {
    if (this.#settle()) this.#reject(error);
  }

  #startTimer(timeoutMs: number): void {
    const { what, timeoutError } = this.#options;
    this.#timer = setTimeout(() => {
      this.reject(timeoutError?.() ?? new QmpError('timeout', `${what}: nothing within ${timeoutMs} ms`));
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
