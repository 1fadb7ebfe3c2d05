export * from './rpc.ts';
export { connectAgent, type ConnectAgentOptions, type ConnectedAgent } from './agent-connect.ts';
export { deployAgent, type DeployedAgent, type DeployOptions } from './agent-deploy.ts';
export { startAgent, type StartedAgent, type StartOptions } from './agent-start.ts';
export type { BundleFile } from './agent-bundle.ts';
export { openSshSession, type OpenSshOptions } from './ssh-open.ts';
export type { SshSession } from './ssh-session.ts';
export type { SshTarget } from './ssh-settings.ts';
export { BrokerAgents } from './amqp-controller.ts';
