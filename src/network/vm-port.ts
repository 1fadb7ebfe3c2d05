/** A VM's port: its tap, with descriptors that are twins of QEMU's. */
export interface VmPort {
  readonly vm: string;
  /** Of the tap. */
  readonly name: string;
  readonly ifindex: number;
  /** One for each queue; the first is of a queue that is in use. */
  readonly tapFds: readonly number[];
  /** The numbers that these descriptors have in QEMU. */
  readonly qemuFds?: readonly number[] | undefined;
  /** The VM's QEMU, whose main thread reads the tap; none: nobody does. */
  readonly pid?: number | undefined;
  /** A thread of the kernel reads the tap instead. */
  readonly vhost?: boolean | undefined;
}
