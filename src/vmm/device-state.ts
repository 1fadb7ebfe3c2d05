import { StaghornError } from '../errors/index.ts';

const streamMagic = 0x5145564d; // "QEVM"
const streamVersion = 3;
const configurationSection = 0x07; // QEMU_VM_CONFIGURATION
const headerBytes = 8;

/**
 * What `xen-save-devices-state` writes, as a stream that `migrate-incoming` loads: the same, with the
 * configuration section that a migration has after its header (QEMU migration/savevm.c, vmstate_configuration).
 * @param machineType full name, such as "pc-i440fx-7.2"
 * @throws StaghornError 'vm-failed' if QEMU wrote something else.
 */
export function withConfiguration(deviceState: Buffer, machineType: string): Buffer {
  if (
    deviceState.length < headerBytes ||
    deviceState.readUInt32BE(0) !== streamMagic ||
    deviceState.readUInt32BE(4) !== streamVersion
  ) {
    throw new StaghornError(
      'vm-failed',
      'QEMU wrote a device state without the header of a version 3 stream',
    );
  }
  const name = Buffer.from(machineType, 'ascii');
  const section = Buffer.alloc(5);
  section.writeUInt8(configurationSection, 0);
  section.writeUInt32BE(name.length, 1);
  return Buffer.concat([
    deviceState.subarray(0, headerBytes),
    section,
    name,
    deviceState.subarray(headerBytes),
  ]);
}
