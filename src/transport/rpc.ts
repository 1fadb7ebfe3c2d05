// The half of the transport that an agent needs. Apart from index.ts so that an agent's bundle is without SSH, whose
// native parts do not bundle.
export { serveAtBroker, type ServeAtBrokerOptions } from './amqp-agent.ts';
export { readBrokerFile, type BrokerSettings } from './amqp-settings.ts';
export { createRpcClient, type CallOptions, type RpcClient } from './rpc-client.ts';
export {
  defineContract,
  type HandlerContext,
  type MethodName,
  type MethodParams,
  type MethodResult,
  type NotificationName,
  type NotificationParams,
  type RpcContract,
  type RpcHandlers,
} from './rpc-contract.ts';
export { createInProcessPair, type InProcessOptions } from './rpc-in-process.ts';
export type { RpcConnection } from './rpc-peer.ts';
export { serveRpc, type RpcServer } from './rpc-server.ts';
export { transportLimits } from './limits.ts';
