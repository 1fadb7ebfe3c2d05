import type { FastifyBaseLogger } from 'fastify';

import type { StaghornService } from '../controller/service.ts';

/** What the command line stands on beside the API: loaded only by the commands that need it. */
export interface Parts {
  /** @param options.brokerFile - how to get to the site's message broker */
  createController(options: {
    stateDir: string;
    logger: FastifyBaseLogger;
    brokerFile?: string | undefined;
  }): Promise<Controller>;
  /** Runs the agent of this host until a signal. @returns its exit code */
  runAgent(args: readonly string[], signal: AbortSignal): Promise<number>;
  loadLab(): Promise<LabTools>;
}

export interface Controller {
  readonly service: StaghornService;
  /** Ends operations and lets agents go. */
  close(): Promise<void>;
}

/** The test bed on this machine (src/lab), by lab file. */
export interface LabTools {
  up(file: string, options: LabUpOptions): Promise<LabDescription>;
  /** By file or name; false if there was none. */
  down(lab: string): Promise<boolean>;
  status(lab: string): Promise<LabState>;
}

export interface LabUpOptions {
  readonly onProgress: (progress: { readonly step: string; readonly detail: string }) => void;
  readonly signal: AbortSignal;
}

export interface LabDescription {
  readonly name: string;
  readonly experimentFile: string;
  readonly hosts: readonly { readonly name: string; readonly address: string }[];
  readonly vms: readonly { readonly name: string; readonly host: string }[];
}

export interface LabState {
  readonly name: string;
  readonly state: string;
  readonly hosts: readonly { readonly name: string; readonly address: string; readonly pid: number | null }[];
  readonly vms: readonly { readonly name: string; readonly host: string; readonly pid: number | null }[];
  readonly shaped: readonly ShapedState[];
}

/** A link or NIC that is slowed, delayed or lossy. */
export interface ShapedState {
  readonly host: string;
  readonly device: string;
  readonly towards: string;
  readonly shape: string;
  readonly inPlace: boolean;
}
