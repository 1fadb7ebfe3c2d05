export { Endpoint } from './endpoint.ts';
export type { EndpointInstant, PreparedChange } from './endpoint.ts';
export { Generator } from './generator.ts';
export { judge } from './judge.ts';
export type { FlowVerdict, Verdict } from './judge.ts';
export type { EndpointPlan, FlowPlan } from './plan.ts';
export type { EndpointHello, EndpointReport } from './report.ts';
