import { existsSync } from 'node:fs';

import type { Controller, Parts } from './parts.ts';

/** The parts that the real command line stands on. Loaded late: a client needs neither SSH nor a database. */
export const realParts: Parts = {
  async createController(options): Promise<Controller> {
    const { createController } = await import('../controller/index.ts');
    return createController(options);
  },
  async loadLab() {
    const { labDown, labStatus, labUp, readLabFile } = await import('../lab/index.ts');
    const nameOf = async (lab: string) => (existsSync(lab) ? (await readLabFile(lab)).name : lab);
    return {
      up: async (file, options) => labUp(await readLabFile(file), options),
      down: async (lab) => labDown(await nameOf(lab)),
      status: async (lab) => labStatus(await nameOf(lab)),
    };
  },
};
