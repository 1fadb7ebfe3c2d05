import type { OvsdbRow, OvsdbValue } from './values.ts';

/** RFC 7047, section 5.1. */
export type OvsdbCondition = readonly [
  column: string,
  operator: '<' | '<=' | '==' | '!=' | '>=' | '>' | 'includes' | 'excludes',
  value: OvsdbValue,
];

/** RFC 7047, section 5.1. */
export type OvsdbMutation = readonly [
  column: string,
  mutator: '+=' | '-=' | '*=' | '/=' | '%=' | 'insert' | 'delete',
  value: OvsdbValue,
];

type Where = readonly OvsdbCondition[];

/** The operations of RFC 7047, section 5.2. `where: []` is every row. */
export type OvsdbOperation =
  | { readonly op: 'insert'; readonly table: string; readonly row: OvsdbRow; readonly 'uuid-name'?: string }
  | {
      readonly op: 'select';
      readonly table: string;
      readonly where: Where;
      readonly columns?: readonly string[];
    }
  | { readonly op: 'update'; readonly table: string; readonly where: Where; readonly row: OvsdbRow }
  | {
      readonly op: 'mutate';
      readonly table: string;
      readonly where: Where;
      readonly mutations: readonly OvsdbMutation[];
    }
  | { readonly op: 'delete'; readonly table: string; readonly where: Where }
  | {
      readonly op: 'wait';
      /** Milliseconds. */
      readonly timeout?: number;
      readonly table: string;
      readonly where: Where;
      readonly columns: readonly string[];
      readonly until: '==' | '!=';
      readonly rows: readonly OvsdbRow[];
    }
  | { readonly op: 'commit'; readonly durable: boolean }
  | { readonly op: 'abort' }
  | { readonly op: 'comment'; readonly comment: string }
  | { readonly op: 'assert'; readonly lock: string };

/** What an operation leaves: `uuid` of an insert, `rows` of a select, `count` of update, mutate and delete. */
export interface OvsdbResult {
  readonly uuid?: readonly ['uuid', string];
  readonly rows?: readonly OvsdbRow[];
  readonly count?: number;
}

/** RFC 7047, section 4.1.5. Columns left out: all. Kinds of change left out: true. */
export interface OvsdbMonitorRequest {
  readonly columns?: readonly string[];
  readonly select?: {
    readonly initial?: boolean;
    readonly insert?: boolean;
    readonly delete?: boolean;
    readonly modify?: boolean;
  };
}

/**
 * Changes by table and row's UUID (RFC 7047, section 4.1.6). `new` alone: inserted, or there initially; `old` alone:
 * deleted; both: modified, and `old` holds only the columns that changed.
 */
export type OvsdbTableUpdates = Readonly<
  Record<string, Readonly<Record<string, { readonly old?: OvsdbRow; readonly new?: OvsdbRow }>>>
>;

/** RFC 7047, section 3.2, as far as clients look at it. */
export interface OvsdbSchema {
  readonly name: string;
  readonly version: string;
  readonly cksum?: string;
  readonly tables: Readonly<
    Record<
      string,
      {
        readonly columns: Readonly<Record<string, OvsdbColumn>>;
        readonly maxRows?: number;
        readonly isRoot?: boolean;
        readonly indexes?: readonly (readonly string[])[];
      }
    >
  >;
}

export interface OvsdbColumn {
  readonly type: unknown;
  readonly ephemeral?: boolean;
  readonly mutable?: boolean;
}
