import { z } from 'zod';

import { instantNs } from '../../protocol/instant.ts';
import { defineContract } from '../../transport/rpc.ts';

/** The least that shows when a call arrives. */
export const busContract = defineContract({
  methods: {
    stamp: { params: z.strictObject({}), result: z.strictObject({ arrivedAtNs: instantNs }) },
  },
  notifications: {},
});
