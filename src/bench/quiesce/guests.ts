/**
 * Guests of a few bytes that boot from a floppy's first sector: their CPUs are all that a stop has to deal with.
 */
const floppyBytes = 1440 * 1024;
const signaturePlace = 510;

/** jmp $: it never gives its CPU away. */
const spinning = 'ebfe';

/**
 * The timer at 250 Hz, and a few thousand rounds of a loop at each tick, as a quiet server has it:
 * mov al,34h; out 43h,al; mov ax,4773; out 40h,al; mov al,ah; out 40h,al; again: sti; hlt; mov cx,4000; here: loop here;
 * jmp again.
 */
const ticking = 'b034e643b8a512e64088e0e640fbf4b9a00fe2feebf7';

export type GuestLoad = 'mostly idle' | 'busy';

/** The image of a floppy disk whose boot sector is the guest. */
export function guestFloppy(load: GuestLoad): Buffer {
  const floppy = Buffer.alloc(floppyBytes);
  Buffer.from(load === 'busy' ? spinning : ticking, 'hex').copy(floppy);
  floppy.writeUInt16BE(0x55aa, signaturePlace);
  return floppy;
}
