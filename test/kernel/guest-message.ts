/** What the guest says, one a line. */
export type GuestMessage =
  | { readonly kind: 'began'; readonly suite: string; readonly test: string }
  | GuestResult
  /** A suite is over; errors are those outside of its tests. */
  | { readonly kind: 'suite'; readonly suite: string; readonly errors: readonly string[] }
  | { readonly kind: 'end' };

export interface GuestResult {
  readonly kind: 'result';
  readonly suite: string;
  readonly test: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  readonly durationMs: number;
  readonly errors: readonly string[];
}
