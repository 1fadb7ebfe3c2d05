/** Every limit of the transport, in one place (`docs/limits.md`). */
export const transportLimits = {
  /** The largest RPC message that is sent or accepted; refused before memory is taken for it. */
  maxMessageBytes: 64 * 1024 * 1024,
  /** The largest header block in front of a message. */
  maxHeaderBytes: 4096,
  /** Bytes that may wait for a peer that reads too slowly, as a multiple of the largest message. */
  maxQueuedMessages: 2,
  /** Calls without an answer on one connection, on either side. */
  maxPendingCalls: 1024,
  /** What is kept of an agent's standard error, to quote it when the agent dies. */
  stderrTailBytes: 8 * 1024,
  /** What is kept of each output of a command that was run to its end. */
  runOutputBytes: 1024 * 1024,
  /** Hops of ProxyJump, and depth of Include in ssh_config (OpenSSH's READCONF_MAX_DEPTH). */
  maxSshConfigDepth: 16,
  /** Versions of the agent that are kept in a host's cache. */
  keptVersions: 3,
  /** A larger part of a session's byte stream goes through the broker in pieces (RabbitMQ 4 takes 16 MiB at most). */
  brokerPieceBytes: 1024 * 1024,
  /** Agents that one published message names: all names fit in a frame of 128 KiB. */
  brokerTargets: 500,
  /** AMQP's own heartbeat: a broker that is silent for two of them is lost. */
  brokerHeartbeatS: 4,
  /** How often controller and agent tell each other through the broker that they are there. */
  brokerBeatMs: 2_000,
  /** A peer that was not heard for so long is lost. */
  brokerSilenceMs: 9_000,
} as const;
