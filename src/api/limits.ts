/** Limits of the REST API (docs/api.md lists them). */
export interface ApiLimits {
  /** Largest request body; a request with more is answered 413. */
  readonly bodyBytes: number;
  /** Longest path parameter. */
  readonly parameterLength: number;
  /** Open connections; more are closed at once by Node.js. */
  readonly connections: number;
  /** A comment is sent on a silent event stream this often, so that proxies keep it open. */
  readonly heartbeatMs: number;
  /** For how long an answer waits for the end of an operation, if a client prefers that. */
  readonly waitSeconds: number;
}

export const defaultLimits: ApiLimits = {
  bodyBytes: 1024 * 1024,
  parameterLength: 128,
  connections: 1000,
  heartbeatMs: 15_000,
  waitSeconds: 60,
};
