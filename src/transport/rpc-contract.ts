import type { z } from 'zod';

export interface RpcMethod {
  readonly params: z.ZodType;
  readonly result: z.ZodType;
}

/**
 * What two peers say to each other, as data. The schemas may hold codecs: their input is the wire's form, their
 * output the form in memory. Sending encodes, receiving decodes, and both check.
 */
export interface RpcContract {
  readonly methods: Readonly<Record<string, RpcMethod>>;
  readonly notifications: Readonly<Record<string, { readonly params: z.ZodType }>>;
}

/** Types a contract; adds nothing at run time. */
export function defineContract<const Contract extends RpcContract>(contract: Contract): Contract {
  return contract;
}

export type MethodName<C extends RpcContract> = keyof C['methods'] & string;
export type NotificationName<C extends RpcContract> = keyof C['notifications'] & string;

export type MethodParams<C extends RpcContract, M extends MethodName<C>> = z.output<
  C['methods'][M]['params']
>;
export type MethodResult<C extends RpcContract, M extends MethodName<C>> = z.output<
  C['methods'][M]['result']
>;
export type NotificationParams<C extends RpcContract, N extends NotificationName<C>> = z.output<
  C['notifications'][N]['params']
>;

export interface HandlerContext {
  /** Aborts when the caller cancels, when its deadline passes, and when the connection ends. */
  readonly signal: AbortSignal;
}

/** One handler a method; nothing of the contract may be left out. */
export type RpcHandlers<C extends RpcContract> = {
  readonly [M in MethodName<C>]: (
    params: MethodParams<C, M>,
    context: HandlerContext,
  ) => MethodResult<C, M> | Promise<MethodResult<C, M>>;
};
