/** Of this Staghorn; the controller refuses an agent of another. */
export const version = '0.1.0';
