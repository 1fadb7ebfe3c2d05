export { connectAgent, type ConnectAgentOptions, type ConnectedAgent } from './agent-connect.ts';
export { deployAgent, type DeployedAgent, type DeployOptions } from './agent-deploy.ts';
export { startAgent, type StartedAgent, type StartOptions } from './agent-start.ts';
export type { BundleFile } from './agent-bundle.ts';
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
export { openSshSession, type OpenSshOptions } from './ssh-open.ts';
export type { SshSession } from './ssh-session.ts';
export type { SshTarget } from './ssh-settings.ts';
export { transportLimits } from './limits.ts';
