export { OvsdbClient } from './client.ts';
export type { OvsdbConnectOptions, OvsdbMonitor, OvsdbOptions } from './client.ts';
export { OvsdbDecoder } from './decoder.ts';
export { OvsdbError } from './errors.ts';
export type { OvsdbErrorCode, OvsdbFailure } from './errors.ts';
export type { JsonObject, JsonValue } from './json.ts';
export { encodeMessage } from './messages.ts';
export type { OvsdbMessage } from './messages.ts';
export type { OvsdbUpdateListener } from './monitor.ts';
export { openVSwitch, readSwitches } from './open-vswitch.ts';
export type { OvsBridge, OvsInterface, OvsPort, OvsdbTransactor } from './open-vswitch.ts';
export type {
  OvsdbColumn,
  OvsdbCondition,
  OvsdbMonitorRequest,
  OvsdbMutation,
  OvsdbOperation,
  OvsdbResult,
  OvsdbSchema,
  OvsdbTableUpdates,
} from './operations.ts';
export { OvsdbSession } from './session.ts';
export type { OvsdbOccurrence, OvsdbSessionRequest } from './session.ts';
export type { Transport, TransportHandlers } from './transport.ts';
export { connectUnixSocket } from './unix-socket.ts';
export {
  fromMap,
  fromOptional,
  fromSet,
  namedUuid,
  numbersOf,
  stringMapOf,
  stringsOf,
  toMap,
  toSet,
  uuid,
  uuidsOf,
} from './values.ts';
export type { OvsdbAtom, OvsdbMap, OvsdbRow, OvsdbSet, OvsdbValue } from './values.ts';
export type { WaitOptions } from './waiter.ts';
export { Waiter } from './waiter.ts';
