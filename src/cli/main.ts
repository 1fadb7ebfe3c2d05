import { runCli } from './program.ts';
import { realParts } from './real-parts.ts';
import { processTerminal } from './terminal.ts';

// At once: what a second signal left behind must not keep the process.
process.exit(await runCli(process.argv.slice(2), processTerminal(), realParts));
