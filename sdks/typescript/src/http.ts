/** Requests: attempts, their limits in time, retries, and every fault as one of this package's errors. */

import {
  ApiError, ConnectionError, ExpiredError, InsufficientCreditsError, InvalidJSONError, InvalidResponseError,
  NotFoundError, PixelDojoError, RateLimitError, ServerError, TimeoutError, UnauthorizedError, ValidationError,
  type ErrorDetail, type ErrorFields,
} from "./errors.js";
import { ShapeFault, isObject } from "./shapes.js";
import { Limit, sleep } from "./time.js";
import { VERSION } from "./version.js";

/** `fetch`, as far as it is needed here. */
export type Fetch = (url: string, init?: RequestInit) => Promise<Response>;

/** What any call may be given. */
export interface RequestOptions {
  /** Ends the call, its retries and waits; it rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** The time limit of one attempt, in milliseconds. */
  timeoutMs?: number;
  /** How often to try again. */
  maxRetries?: number;
  /** More request headers. */
  headers?: Record<string, string>;
}

export interface HttpOptions {
  apiKey: string | undefined;
  root: string;
  fetch: Fetch;
  timeoutMs: number;
  maxRetries: number;
  retryBaseMs: number;
  maxRetryAfterMs: number;
  headers: Record<string, string>;
}

export interface Call {
  method?: "GET" | "POST" | "DELETE";
  /** Below the root, or a whole URL outside the API: then no key is sent, and redirects are followed. */
  path?: string;
  url?: string;
  query?: Record<string, string | number | boolean | undefined>;
  json?: unknown;
  headers?: Record<string, string | undefined>;
  /** `refused`: only when the service says that it did nothing, because a second time would do it twice. */
  retry?: "always" | "refused";
  options?: RequestOptions | undefined;
}

const LONGEST_BACKOFF_MS = 8_000;

/** May the same request do better in a moment? */
export function isTransient(error: unknown): error is PixelDojoError {
  if (error instanceof ConnectionError || error instanceof TimeoutError || error instanceof RateLimitError) return true;
  return error instanceof PixelDojoError && (error.status ?? 0) >= 500;
}

/** Seconds that `Retry-After` asks for: a number, or a date by the clock of the server that wrote it. */
export function retryAfter(headers: Headers): number | undefined {
  const text = headers.get("retry-after")?.trim();
  if (!text) return undefined;
  if (/^\d{1,9}(\.\d+)?$/.test(text)) return Number(text);
  const until = Date.parse(text);
  if (Number.isNaN(until)) return undefined;
  const told = Date.parse(headers.get("date") ?? "");
  return Math.max(0, (until - (Number.isNaN(told) ? Date.now() : told)) / 1000);
}

/** Why `fetch` failed, in words: runtimes hide it in the cause. */
function reason(fault: unknown): string {
  const inner = fault instanceof Error && fault.cause !== undefined ? fault.cause : fault;
  if (!(inner instanceof Error)) return String(inner);
  const code = (inner as { code?: unknown }).code;
  return inner.message || (typeof code === "string" ? code : inner.name);
}

/** Only where no browser counts it among the headers that need the server's permission. */
const AGENT: Record<string, string> =
  (globalThis as { process?: { versions?: { node?: string } } }).process?.versions?.node !== undefined
    ? { "user-agent": `pixeldojo-typescript/${VERSION}` }
    : {};

export class Http {
  readonly #options: HttpOptions;

  constructor(options: HttpOptions) {
    this.#options = options;
  }

  get root(): string {
    return this.#options.root;
  }

  /** The JSON of a good answer, of the shape that `check` wants. */
  json<T>(call: Call, check: (value: unknown) => T): Promise<T> {
    return this.#attempts(call, async () => {
      const where = this.#where(call);
      const limit = this.#limit(call, where);
      try {
        const response = await this.#send(call, where, limit);
        const text = await this.#text(response, where, limit);
        return parse(text, check, { where, response });
      } finally {
        limit.clear();
      }
    });
  }

  /**
   * A good answer whose body is still to come. The body rejects with this package's errors, also when nothing
   * comes for `idleMs`.
   */
  open(call: Call, idleMs?: number): Promise<Response> {
    return this.#attempts(call, async () => {
      const where = this.#where(call);
      const limit = this.#limit(call, where);
      try {
        const response = await this.#send(call, where, limit);
        const pause = idleMs ?? call.options?.timeoutMs ?? this.#options.timeoutMs;
        const { status, headers } = response;
        return new Response(guarded(response, where, limit, pause), { status, headers });
      } catch (error) {
        limit.clear();
        throw error;
      }
    });
  }

  /** How many milliseconds to wait before attempt number `tried` + 1; undefined to give up. */
  backoff(error: unknown, tried: number, call: Pick<Call, "options" | "retry">): number | undefined {
    if (!isTransient(error) || tried > (call.options?.maxRetries ?? this.#options.maxRetries)) return undefined;
    if (call.retry === "refused" && !(error instanceof RateLimitError)) return undefined;
    const told = error instanceof ApiError && error.retryAfter !== undefined ? error.retryAfter * 1000 : 0;
    if (told > this.#options.maxRetryAfterMs) return undefined;
    const most = Math.min(LONGEST_BACKOFF_MS, this.#options.retryBaseMs * 2 ** (tried - 1));
    const jitter = Math.random() * most;
    return told > 0 ? told + Math.min(jitter, told / 4) : jitter;
  }

  async #attempts<T>(call: Call, attempt: () => Promise<T>): Promise<T> {
    const signal = call.options?.signal;
    for (let tried = 1; ; tried++) {
      signal?.throwIfAborted();
      try {
        return await attempt();
      } catch (error) {
        signal?.throwIfAborted();
        const wait = this.backoff(error, tried, call);
        if (wait === undefined) throw error;
        await sleep(wait, signal);
      }
    }
  }

  #where(call: Call): string {
    const url = new URL(call.url ?? this.#options.root + (call.path ?? ""));
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url.href;
  }

  #limit(call: Call, where: string): Limit {
    const ms = call.options?.timeoutMs ?? this.#options.timeoutMs;
    const late = (): TimeoutError => new TimeoutError(`${place(where)} did not answer within ${ms / 1000} s`);
    return new Limit(ms, call.options?.signal, late);
  }

  async #send(call: Call, where: string, limit: Limit): Promise<Response> {
    const ours = call.url === undefined;
    const headers = new Headers({
      accept: ours ? "application/json" : "*/*",
      ...AGENT,
      ...(ours ? this.#options.headers : {}),
    });
    const { apiKey } = this.#options;
    if (ours && apiKey !== undefined) headers.set("authorization", `Bearer ${apiKey}`);
    const init: RequestInit = { method: call.method ?? "GET", headers, signal: limit.signal };
    init.redirect = ours ? "manual" : "follow"; // a redirect would carry the key away, or turn a POST into a GET
    if (call.json !== undefined) {
      init.body = JSON.stringify(call.json);
      headers.set("content-type", "application/json");
    }
    for (const [name, value] of Object.entries({ ...call.headers, ...call.options?.headers })) {
      if (value !== undefined) headers.set(name, value);
    }
    let response: Response;
    try {
      response = await limit.race(this.#options.fetch(where, init));
    } catch (fault) {
      throw broken(fault, where, limit);
    }
    if (response.ok) return response;
    throw await this.#refusal(response, where, limit);
  }

  async #text(response: Response, where: string, limit: Limit): Promise<string> {
    try {
      return await limit.race(response.text());
    } catch (fault) {
      throw broken(fault, where, limit);
    }
  }

  /** What an answer that is not good says. */
  async #refusal(response: Response, where: string, limit: Limit): Promise<PixelDojoError> {
    const { status } = response;
    if (response.type === "opaqueredirect" || (status >= 300 && status < 400)) {
      const to = response.headers.get("location");
      void response.body?.cancel().catch(() => {});
      const text = `${place(where)} redirects${to ? ` to ${to}` : ""}; set \`baseUrl\` to the service's own address`;
      return new InvalidResponseError(text, { status: status || undefined });
    }
    const text = await this.#text(response, where, limit);
    let body: unknown;
    try {
      body = JSON.parse(text);
    } catch {
      body = undefined;
    }
    const inner = isObject(body) ? body["error"] : undefined;
    if (!isObject(inner) || typeof inner["code"] !== "string" || typeof inner["message"] !== "string") {
      const said = `${place(where)} answered ${status} without an error that PixelDojo gives`;
      return new InvalidResponseError(said, { status }, text);
    }
    const id = inner["requestId"];
    return apiError(inner["code"], inner["message"], {
      status,
      requestId: typeof id === "string" ? id : (response.headers.get("x-request-id") ?? undefined),
      retryAfter: retryAfter(response.headers),
      details: details(inner["details"]),
    });
  }
}

const BY_CODE = new Map<string, typeof ApiError>(Object.entries({
  unauthorized: UnauthorizedError,
  invalid_json: InvalidJSONError,
  validation_error: ValidationError,
  insufficient_credits: InsufficientCreditsError,
  not_found: NotFoundError,
  expired: ExpiredError,
  rate_limit_exceeded: RateLimitError,
  internal_error: ServerError,
  credit_error: ServerError,
  submission_failed: ServerError,
}));

function apiError(code: string, message: string, fields: ErrorFields): ApiError {
  const known = BY_CODE.get(code);
  const kind = known ?? ((fields.status ?? 0) >= 500 ? ServerError : ApiError);
  return new kind(message, { ...fields, code });
}

function details(value: unknown): ErrorDetail[] {
  if (!Array.isArray(value)) return [];
  return value.filter(
    (each): each is ErrorDetail =>
      isObject(each) && typeof each["path"] === "string" && typeof each["message"] === "string",
  );
}

/** The address without its query, which may hold a signature. */
function place(where: string): string {
  return where.split("?", 1)[0] ?? where;
}

function broken(fault: unknown, where: string, limit: Limit): unknown {
  if (limit.signal.aborted) return limit.signal.reason;
  if (fault instanceof PixelDojoError) return fault;
  return new ConnectionError(`can't reach ${place(where)}: ${reason(fault)}`, { cause: fault });
}

/** `text` as JSON of the shape that `check` wants. Raises `InvalidResponseError`. */
export function parse<T>(
  text: string,
  check: (value: unknown) => T,
  { where, response }: { where: string; response?: Response },
): T {
  const fields = { status: response?.status, requestId: response?.headers.get("x-request-id") ?? undefined };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidResponseError(`${place(where)} answered with something that is not JSON`, { ...fields, cause }, text);
  }
  try {
    return check(value);
  } catch (fault) {
    if (!(fault instanceof ShapeFault)) throw fault;
    throw new InvalidResponseError(`${place(where)} answered with an unknown shape: ${fault.message}`, fields, text);
  }
}

/** The body, whole or with an error: when it stops coming, breaks off, or is shorter than announced. */
function guarded(response: Response, where: string, limit: Limit, pauseMs: number): ReadableStream<Uint8Array> {
  const reader = response.body?.getReader();
  const plain = !response.headers.get("content-encoding") && response.status !== 206;
  const announced = plain ? Number(response.headers.get("content-length") ?? NaN) : NaN;
  let came = 0;
  limit.pause();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        limit.restart(pauseMs);
        try {
          limit.signal.throwIfAborted();
          const { done, value } = reader ? await limit.race(reader.read()) : { done: true, value: undefined };
          if (value) {
            came += value.byteLength;
            controller.enqueue(value);
          }
          if (done) {
            if (came < announced) throw new Error(`the answer broke off after ${came} of ${announced} bytes`);
            limit.clear();
            controller.close();
          }
        } catch (fault) {
          const told = broken(fault, where, limit);
          limit.close();
          controller.error(told);
        } finally {
          limit.pause();
        }
      },
      cancel() {
        limit.close();
        return reader?.cancel().catch(() => {});
      },
    },
    { highWaterMark: 0 },
  );
}
