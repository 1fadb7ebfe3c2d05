type LogMethod = (fields: Record<string, unknown>, message: string) => void;

/** The part of pino's logger that Staghorn uses; an agent's records travel to the controller. */
export interface Logger {
  readonly debug: LogMethod;
  readonly info: LogMethod;
  readonly warn: LogMethod;
  readonly error: LogMethod;
}
