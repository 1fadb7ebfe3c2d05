export { UnixctlClient } from './client.ts';
export type { UnixctlConnectOptions, UnixctlOptions } from './client.ts';
export { UnixctlError } from './errors.ts';
export type { UnixctlErrorCode } from './errors.ts';
export { controlSocketPath, daemonPid, runDirectory } from './socket-path.ts';
