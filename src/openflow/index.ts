export type { DumpedTables } from './dump.ts';
export { OpenFlowError } from './errors.ts';
export type { OpenFlowErrorCode } from './errors.ts';
export { readTables } from './read-tables.ts';
export type { ReadTablesOptions } from './read-tables.ts';
