import type { Client, SFTPWrapper } from 'ssh2';
import { StaghornError, messageOf } from '../errors/index.ts';
import { abortReason } from './deadline.ts';

export interface UploadOptions {
  /** Permission bits of the remote file. */
  readonly mode: number;
  readonly onProgress?: ((sentBytes: number, totalBytes: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** An SFTP channel of a session. */
export class SftpChannel {
  readonly #sftp: SFTPWrapper;
  readonly #host: string;

  constructor(sftp: SFTPWrapper, host: string) {
    this.#sftp = sftp;
    this.#host = host;
    sftp.on('error', () => undefined);
  }

  /**
   * Writes a local file to a remote path. When it fails, part of the file may be there.
   * @throws StaghornError 'host-unfit' (the host refuses), 'host-unreachable' (the connection is lost), 'cancelled'
   */
  uploadFile(localPath: string, remotePath: string, options: UploadOptions): Promise<void> {
    const { mode, onProgress, signal } = options;
    const context = { host: this.#host };
    return new Promise((resolve, reject) => {
      const settle = (error?: StaghornError) => {
        signal?.removeEventListener('abort', onAbort);
        this.#sftp.off('close', onClose);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onAbort = () => {
        settle(signal && abortReason(signal, `the upload of ${localPath}`));
        this.#sftp.end();
      };
      const onClose = () =>
        settle(
          new StaghornError(
            'host-unreachable',
            `host ${this.#host}: the connection was lost during an upload`,
            { context },
          ),
        );
      if (signal?.aborted) return onAbort();
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#sftp.once('close', onClose);
      const step = (sentBytes: number, _chunkBytes: number, totalBytes: number) =>
        onProgress?.(sentBytes, totalBytes);
      this.#sftp.fastPut(localPath, remotePath, { mode, step }, (error) => {
        if (!error) return settle();
        const text = `host ${this.#host}: cannot upload ${localPath} to ${remotePath}: ${messageOf(error)}`;
        settle(new StaghornError('host-unfit', text, { cause: error, context }));
      });
    });
  }

  close(): void {
    this.#sftp.end();
  }
}

/** @throws StaghornError 'host-unfit' if the host's sshd has no SFTP subsystem */
export function openSftp(client: Client, host: string): Promise<SftpChannel> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      const text = `host ${host}: SFTP is not to be had (has its sshd_config a "Subsystem sftp"?): ${messageOf(error)}`;
      reject(new StaghornError('host-unfit', text, { cause: error, context: { host } }));
    };
    try {
      client.sftp((error, sftp) => (error ? fail(error) : resolve(new SftpChannel(sftp, host))));
    } catch (error) {
      fail(error);
    }
  });
}
