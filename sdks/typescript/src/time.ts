/** Waiting that a signal ends, and limits on waiting. */

/** Timers take at most this many milliseconds. */
const LONGEST_MS = 2 ** 31 - 1;

/** Milliseconds by a clock that nobody sets. */
export function now(): number {
  return performance.now();
}

/** Rejects with the signal's reason as soon as it is aborted. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, Math.min(Math.max(ms, 0), LONGEST_MS));
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * A signal that is aborted when the caller's is, or with `late()` once the time is over. `clear()` it in the end.
 *
 * `race` ends with the signal even where what it waits for does not heed it.
 */
export class Limit {
  readonly signal: AbortSignal;
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #forward: () => void;
  readonly #late: () => unknown;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #ended: Promise<never>;

  constructor(ms: number, caller: AbortSignal | undefined, late: () => unknown) {
    this.signal = this.#controller.signal;
    this.#late = late;
    this.#caller = caller;
    this.#forward = () => this.#controller.abort(caller?.reason);
    this.#ended = new Promise((_, reject) => {
      this.signal.addEventListener("abort", () => reject(this.signal.reason), { once: true });
    });
    this.#ended.catch(() => {});
    if (caller?.aborted) this.#forward();
    else caller?.addEventListener("abort", this.#forward, { once: true });
    this.restart(ms);
  }

  /** Begin the time anew. */
  restart(ms: number): void {
    this.pause();
    if (ms <= LONGEST_MS) this.#timer = setTimeout(() => this.#controller.abort(this.#late()), Math.max(ms, 0));
  }

  race<T>(promise: Promise<T>): Promise<T> {
    return Promise.race([promise, this.#ended]);
  }

  /** Stop the clock; the caller's signal still counts. */
  pause(): void {
    clearTimeout(this.#timer);
  }

  clear(): void {
    this.pause();
    this.#caller?.removeEventListener("abort", this.#forward);
  }

  /** `clear`, and end what still runs under the signal. */
  close(): void {
    this.clear();
    this.#controller.abort();
  }
}
