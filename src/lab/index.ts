/** The lab: a test bed on one machine, from a YAML file (docs/lab.md). */
export { labDown } from './down.ts';
export { datagramFlaws, DropWatch, flawsOf } from './flaws.ts';
export { runInHost } from './host.ts';
export { isFlawless, judge, type JudgedGuest, type Judgement } from './judge.ts';
export { parseLabFile, readLabFile } from './lab-file.ts';
export { labPaths, serialLog, type LabPaths } from './paths.ts';
export { parseSerial, reportsIn, type GuestLine, type GuestReport } from './report.ts';
export { labSchema } from './schema-checks.ts';
export type { LabFile } from './schema.ts';
export { readGuestLines, readReports, readSerial, serialOffset, type SerialRange } from './serial-log.ts';
export { labNames, labStatus, type LabStatus, type VmStatus } from './status.ts';
export { describeLab, labUp, type Lab, type LabProgress, type LabUpOptions } from './up.ts';
