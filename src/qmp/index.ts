export { QmpClient } from './client.ts';
export type { ExecuteOptions, PreparedCommand, QmpConnectOptions, QmpOptions } from './client.ts';
export type {
  BlockDevice,
  BlockImage,
  CpuInfo,
  MachineInfo,
  MemoryBackend,
  QmpArguments,
  QmpCommandName,
  QmpCommands,
  QmpResult,
  RunState,
  RxFilter,
  StatusInfo,
} from './commands.ts';
export { QmpDecoder } from './decoder.ts';
export { encodeCommand } from './encode-command.ts';
export type { QmpRequest } from './encode-command.ts';
export { QmpError } from './errors.ts';
export type { QmpCommandFailure, QmpErrorCode } from './errors.ts';
export type { EventWaitOptions, QmpEventListener } from './event-log.ts';
export { isEvent } from './events.ts';
export type { QmpEvent, QmpEventName, QmpEvents } from './events.ts';
export type { JsonObject, JsonValue } from './json.ts';
export type { QmpGreeting, QmpMessage, QmpVersion } from './messages.ts';
export type * as QmpMigration from './migration-types.ts';
export { QmpSession } from './session.ts';
export type { QmpOccurrence, QmpSessionRequest, QmpSessionState } from './session.ts';
export type { Transport, TransportHandlers } from './transport.ts';
export { connectUnixSocket } from './unix-socket.ts';
export type { WaitOptions } from './waiter.ts';
