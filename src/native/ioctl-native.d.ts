declare module 'ioctl-native' {
  /** ioctl(2). Throws an Error whose `code` is the errno in digits. */
  export default function ioctl(fd: number, request: number, argument: Buffer): number;
}
