import { vi } from 'vitest';

/** Waits until the expectation holds; long, since the machine may be busy with other things. */
export function eventually(expectation: () => void): Promise<void> {
  return vi.waitFor(expectation, { timeout: 15_000 });
}
