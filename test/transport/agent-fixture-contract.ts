import { z } from 'zod';
import { defineContract } from '../../src/transport/rpc.ts';

export const fixtureContract = defineContract({
  methods: {
    describe: {
      params: z.null(),
      result: z.strictObject({
        uid: z.int(),
        pid: z.int(),
        node: z.string(),
        script: z.string(),
        variable: z.string().nullable(),
      }),
    },
    wait: { params: z.null(), result: z.null() },
    repeat: { params: z.strictObject({ text: z.string(), times: z.int() }), result: z.string() },
    fail: { params: z.null(), result: z.null() },
  },
  notifications: { aborted: { params: z.strictObject({ why: z.string() }) } },
});
