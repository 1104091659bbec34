import { randomHex } from "./crypto.js";
import {
  ApiError, ConnectionError, InvalidResponseError, JobFailedError, PixelDojoError, RateLimitError, TimeoutError,
} from "./errors.js";
import { save } from "./files.js";
import { Http, isTransient, parse, type Call, type RequestOptions } from "./http.js";
import type { ModelInputs } from "./models.generated.js";
import type {
  ClientOptions, EventsOptions, GenerateOptions, InputOf, LedgerOptions, ListJobsOptions, ListModelsOptions, ModelId,
  PageOptions, Progress, RotateOptions, RunOptions, UsageOptions, WaitOptions,
} from "./options.js";
import * as shapes from "./shapes.js";
import { messages } from "./sse.js";
import { Limit, now, sleep } from "./time.js";
import type {
  Account, ApiKey, Asset, Cancellation, CompletedJob, Estimate, Job, JobEvent, JobList, KeyList, KeyTerms, Ledger,
  ModelDetail, ModelList, ModelSchema, NewKey, Receipt, Removal, RotatedKey, Usage, Webhook, WebhookEvent,
  WebhookReplay, WebhookSecrets,
} from "./types.js";
import { verifyWebhook, type VerifyOptions, type WebhookHeaders } from "./webhooks.js";

const HOSTED = "https://pixeldojo.ai/api/v1";

function environment(name: string): string | undefined {
  try {
    const found = (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env?.[name];
    return found?.trim() || undefined;
  } catch {
    return undefined; // Deno without permission to read it
  }
}

/** The address under which `/models` lies. */
function apiRoot(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new TypeError(`baseUrl: ${JSON.stringify(text)} is no address; write http://host:port`);
  }
  if (!/^https?:$/.test(url.protocol)) throw new TypeError("baseUrl must begin with http:// or https://");
  if (url.username || url.password) throw new TypeError("baseUrl must not contain a user or password");
  const path = url.pathname.replace(/\/+$/, "");
  return url.origin + (path.endsWith("/api/v1") ? path : `${path}/api/v1`);
}

function segment(value: string, what: string): string {
  if (typeof value !== "string" || value === "" || value === "." || value === "..") {
    throw new TypeError(`${what} must be the id of one, not ${JSON.stringify(value)}`);
  }
  return encodeURIComponent(value);
}

function naming<T extends unknown>(error: T, names: { jobId?: string; idempotencyKey?: string }): T {
  if (error instanceof PixelDojoError) {
    error.jobId ??= names.jobId;
    error.idempotencyKey ??= names.idempotencyKey;
  }
  return error;
}

/**
 * A client of a PixelDojo service.
 *
 * @typeParam Models The input types of models by id: those of the public catalogue, unless others were generated
 * for another service.
 */
export class PixelDojoClient<Models extends object = ModelInputs> {
  readonly #http: Http;

  constructor(options: ClientOptions = {}) {
    const apiKey = (options.apiKey ?? environment("PIXELDOJO_API_KEY"))?.trim() || undefined;
    if (apiKey !== undefined && !/^[\x21-\x7e]+$/.test(apiKey)) {
      throw new TypeError("apiKey contains something that no key contains");
    }
    const fetcher = options.fetch ?? globalThis.fetch;
    if (typeof fetcher !== "function") throw new TypeError("there is no fetch here; pass one as `fetch`");
    this.#http = new Http({
      apiKey,
      root: apiRoot(options.baseUrl?.trim() || environment("PIXELDOJO_BASE_URL") || HOSTED),
      fetch: (url, init) => fetcher(url, init),
      timeoutMs: options.timeoutMs ?? 30_000,
      maxRetries: options.maxRetries ?? 4,
      retryBaseMs: options.retryBaseMs ?? 500,
      maxRetryAfterMs: options.maxRetryAfterMs ?? 60_000,
      headers: { ...options.headers },
    });
  }

  /** The address under which the API lies, `/api/v1` included. */
  get baseUrl(): string {
    return this.#http.root;
  }

  /** The models that can run now. */
  async listModels(options: ListModelsOptions = {}): Promise<ModelList> {
    const { modality, detailed } = options;
    return this.#http.json({ path: "/models", query: { modality, detailed }, options }, shapes.modelList);
  }

  /** A model with its request schema, examples, limits and price. */
  async getModel(apiId: ModelId<Models>, options?: RequestOptions): Promise<ModelDetail> {
    return this.#http.json({ path: `/models/${segment(apiId, "apiId")}`, options }, shapes.modelDetail);
  }

  /** The JSON Schema of a model's input. */
  async getModelSchema(apiId: ModelId<Models>, options?: RequestOptions): Promise<ModelSchema> {
    return this.#http.json({ path: `/models/${segment(apiId, "apiId")}/schema`, options }, shapes.modelSchema);
  }

  /**
   * Submit a job. It is charged and queued, and runs by itself: `waitForJob` waits for it.
   *
   * All attempts go under one idempotency key, so that at most one job is made and charged.
   */
  async run<Id extends ModelId<Models>>(
    apiId: Id,
    input: InputOf<Id, Models>,
    options: RunOptions = {},
  ): Promise<Receipt> {
    const path = `/models/${segment(apiId, "apiId")}/run`;
    const idempotencyKey = options.idempotencyKey ?? `ts_${await randomHex()}`;
    const headers = { "idempotency-key": idempotencyKey };
    try {
      return await this.#http.json({ method: "POST", path, json: input ?? null, headers, options }, shapes.receipt);
    } catch (error) {
      throw naming(error, { idempotencyKey });
    }
  }

  /**
   * Submit a job and wait until it is completed.
   *
   * Rejects with `JobFailedError` when it fails, and with `TimeoutError` when it takes too long; errors after the
   * submit carry its `jobId`. Ending the wait by `signal` does not end the job: `cancel` does.
   */
  async generate<Id extends ModelId<Models>>(
    apiId: Id,
    input: InputOf<Id, Models>,
    options: GenerateOptions = {},
  ): Promise<CompletedJob> {
    const names: { jobId?: string; idempotencyKey: string } = {
      idempotencyKey: options.idempotencyKey ?? `ts_${await randomHex()}`,
    };
    return this.#within(options, names, async (request) => {
      const receipt = await this.run(apiId, input, { ...request, idempotencyKey: names.idempotencyKey });
      names.jobId = receipt.jobId;
      const ended = receipt.status === "completed" || receipt.status === "failed"; // submitted before
      return this.#follow(receipt.jobId, options, request, { submitted: !ended });
    });
  }

  /** Wait until a job is completed, as `generate` does. */
  async waitForJob(jobId: string, options: WaitOptions = {}): Promise<CompletedJob> {
    segment(jobId, "jobId");
    return this.#within(options, { jobId }, (request) => this.#follow(jobId, options, request, { submitted: false }));
  }

  /** A job in the state it is in. */
  async getJob(jobId: string, options?: RequestOptions): Promise<Job> {
    return this.#http.json({ path: `/jobs/${segment(jobId, "jobId")}`, options }, shapes.job);
  }

  /** A page of the account's jobs, newest first. */
  async listJobs(options: ListJobsOptions = {}): Promise<JobList> {
    const { limit, status, model, key, createdAfter, createdBefore } = options;
    const query: Call["query"] = { limit, status, model, key, createdAfter, createdBefore };
    if (options.cursor) query["cursor"] = options.cursor;
    for (const [name, value] of Object.entries(options.metadata ?? {})) query[`metadata.${name}`] = value;
    return this.#http.json({ path: "/jobs", query, options }, shapes.jobList);
  }

  /** Cancel a job; its credits are refunded unless it is too late. */
  async cancel(jobId: string, options?: RequestOptions): Promise<Cancellation> {
    const path = `/jobs/${segment(jobId, "jobId")}/cancel`;
    return this.#http.json({ method: "POST", path, options }, shapes.cancellation);
  }

  /** Remove an ended job's files now, instead of when it expires. From then on the job is an `ExpiredError`. */
  async deleteJob(jobId: string, options?: RequestOptions): Promise<Removal> {
    const path = `/jobs/${segment(jobId, "jobId")}`;
    return this.#http.json({ method: "DELETE", path, retry: "refused", options }, shapes.removal);
  }

  /** What a job would cost and how long it would wait. Checks the input as `run` does; nothing runs. */
  async estimate<Id extends ModelId<Models>>(
    apiId: Id,
    input: InputOf<Id, Models>,
    options?: RequestOptions,
  ): Promise<Estimate> {
    const path = `/models/${segment(apiId, "apiId")}/estimate`;
    return this.#http.json({ method: "POST", path, json: input ?? null, options }, shapes.estimate);
  }

  /** A job's webhook and its delivery attempts. */
  async getWebhook(jobId: string, options?: RequestOptions): Promise<Webhook> {
    return this.#http.json({ path: `/jobs/${segment(jobId, "jobId")}/webhook`, options }, shapes.webhook);
  }

  /** Send the webhook of an ended job once more. */
  async replayWebhook(jobId: string, options?: RequestOptions): Promise<WebhookReplay> {
    const path = `/jobs/${segment(jobId, "jobId")}/webhook`;
    return this.#http.json({ method: "POST", path, retry: "refused", options }, shapes.replay);
  }

  /** The account of the key: its balance and limits. */
  async account(options?: RequestOptions): Promise<Account> {
    return this.#http.json({ path: "/account", options }, shapes.account);
  }

  /** What the account's jobs cost, by day, model or key. */
  async usage(options: UsageOptions = {}): Promise<Usage> {
    const { from, to, groupBy } = options;
    const query = { from, to, groupBy: groupBy?.join(",") };
    return this.#http.json({ path: "/account/usage", query, options }, shapes.usage);
  }

  /** A page of what came and went, newest first. */
  async ledger(options: LedgerOptions = {}): Promise<Ledger> {
    const { limit, cursor, kind } = options;
    const query = { limit, cursor: cursor || undefined, kind };
    return this.#http.json({ path: "/account/ledger", query, options }, shapes.ledger);
  }

  /** A page of the account's keys, newest first, without their texts. Needs the scope `account:write`. */
  async listKeys(options: PageOptions = {}): Promise<KeyList> {
    const { limit, cursor } = options;
    return this.#http.json({ path: "/account/keys", query: { limit, cursor: cursor || undefined }, options }, shapes.keyList);
  }

  /** Make a key, which can do no more than the one that asks for it. The only answer that shows its text. */
  async createKey(terms: KeyTerms, options?: RequestOptions): Promise<NewKey> {
    const call: Call = { method: "POST", path: "/account/keys", json: terms, retry: "refused", options };
    return this.#http.json(call, shapes.newKey);
  }

  /** Put a new key in the place of an old one, on the same terms and the same budget. */
  async rotateKey(keyId: string, options: RotateOptions = {}): Promise<RotatedKey> {
    const path = `/account/keys/${segment(keyId, "keyId")}/rotate`;
    const { graceSeconds } = options;
    const json = graceSeconds === undefined ? {} : { graceSeconds };
    return this.#http.json({ method: "POST", path, json, retry: "refused", options }, shapes.rotatedKey);
  }

  /** Revoke a key: it stops working at once. Any key may revoke itself. */
  async revokeKey(keyId: string, options?: RequestOptions): Promise<ApiKey> {
    return this.#http.json({ method: "DELETE", path: `/account/keys/${segment(keyId, "keyId")}`, options }, shapes.key);
  }

  /** The secret that signs the account's webhooks. Needs the scope `account:write`. */
  async webhookSecret(options?: RequestOptions): Promise<WebhookSecrets> {
    return this.#http.json({ path: "/account/webhook-secret", options }, shapes.webhookSecrets);
  }

  /** Make a new secret; the one before it stays valid for a day. */
  async rotateWebhookSecret(options?: RequestOptions): Promise<WebhookSecrets> {
    const path = "/account/webhook-secret/rotate";
    return this.#http.json({ method: "POST", path, retry: "refused", options }, shapes.webhookSecrets);
  }

  /**
   * What happens to a job, until it ends. A connection that breaks is made again, and goes on after the last event.
   *
   * `timeoutMs` is how long the stream may be silent before it counts as broken; 60,000.
   */
  async *events(jobId: string, options: EventsOptions = {}): AsyncGenerator<JobEvent, void, undefined> {
    const path = `/jobs/${segment(jobId, "jobId")}/events`;
    const where = this.#http.root + path;
    const state = { id: options.lastEventId ?? "", retryMs: undefined as number | undefined };
    for (let failures = 0; ; ) {
      let heard = false;
      let fault: unknown;
      try {
        const headers = { accept: "text/event-stream", "last-event-id": state.id || undefined };
        const call: Call = { path, headers, options: { ...options, maxRetries: 0 } };
        const response = await this.#http.open(call, options.timeoutMs ?? 60_000);
        if (!/^text\/event-stream\b/i.test(response.headers.get("content-type") ?? "") || !response.body) {
          await response.body?.cancel();
          throw new InvalidResponseError(`${where} is not a stream of events`, { status: response.status });
        }
        for await (const message of messages(response.body, state)) {
          heard = true;
          const data = parse(message.data, (value) => value, { where });
          yield { type: message.event, id: message.id, data } as JobEvent;
          if (message.event === "completed" || message.event === "failed") return;
        }
        fault = new ConnectionError(`the events of ${jobId} broke off`);
      } catch (error) {
        options.signal?.throwIfAborted();
        if (!isTransient(error)) throw naming(error, { jobId });
        fault = error;
      }
      failures = heard ? 0 : failures + 1;
      const wait = heard ? state.retryMs ?? 0 : this.#http.backoff(fault, failures, { options });
      if (wait === undefined) throw naming(fault, { jobId });
      await sleep(Math.max(wait, Math.min(state.retryMs ?? 0, 30_000)), options.signal);
    }
  }

  /** The event in a webhook whose signature is right. Rejects with `WebhookVerificationError`. */
  verifyWebhook(
    payload: string | Uint8Array | ArrayBuffer,
    headers: WebhookHeaders,
    secret: string | readonly string[],
    options?: VerifyOptions,
  ): Promise<WebhookEvent> {
    return verifyWebhook(payload, headers, secret, options);
  }

  /**
   * A result, as a web response: `.body` is a stream, `.blob()` and `.arrayBuffer()` are the whole.
   *
   * The key is not sent. `timeoutMs` is how long nothing may come.
   */
  async downloadAsset(asset: Pick<Asset, "url"> | string, options?: RequestOptions): Promise<Response> {
    const text = typeof asset === "string" ? asset : asset.url;
    const url = new URL(text, this.#http.root);
    if (!/^https?:$/.test(url.protocol)) throw new TypeError("an asset's URL begins with http:// or https://");
    return this.#http.open({ url: url.href, options });
  }

  /**
   * Save a result to a file, whole or not at all; folders on the way are made. Node.js, Deno and Bun only.
   *
   * Returns how many bytes it has.
   */
  async saveAsset(asset: Pick<Asset, "url"> | string, path: string | URL, options?: RequestOptions): Promise<number> {
    for (let tried = 1; ; tried++) {
      const response = await this.downloadAsset(asset, options);
      try {
        return await save(response.body as ReadableStream<Uint8Array>, path);
      } catch (error) {
        options?.signal?.throwIfAborted();
        const wait = this.#http.backoff(error, tried, { options });
        if (wait === undefined) throw error;
        await sleep(wait, options?.signal);
      }
    }
  }

  /** `work` under the options' limit in time; errors get the names. */
  async #within<T>(
    options: WaitOptions,
    names: { jobId?: string; idempotencyKey?: string },
    work: (request: RequestOptions) => Promise<T>,
  ): Promise<T> {
    const ms = options.timeoutMs ?? 600_000;
    const late = (): TimeoutError => {
      const what = names.jobId ? `${names.jobId} did not end` : "the job was not submitted";
      return new TimeoutError(`${what} within ${ms / 1000} s`);
    };
    const limit = new Limit(ms, options.signal, late);
    const request: RequestOptions = { signal: limit.signal };
    if (options.requestTimeoutMs !== undefined) request.timeoutMs = options.requestTimeoutMs;
    if (options.maxRetries !== undefined) request.maxRetries = options.maxRetries;
    if (options.headers !== undefined) request.headers = options.headers;
    try {
      return await limit.race(work(request));
    } catch (error) {
      throw naming(error, names);
    } finally {
      limit.close();
    }
  }

  async #follow(
    jobId: string,
    options: WaitOptions,
    request: RequestOptions,
    { submitted }: { submitted: boolean },
  ): Promise<CompletedJob> {
    const tell = teller(options.onProgress);
    if (submitted) tell({ jobId, status: "pending", progress: 0 });
    const most = options.maxPollIntervalMs ?? Math.max(5_000, options.pollIntervalMs ?? 0);
    let next = Math.min(options.pollIntervalMs ?? 1_000, most);
    const pause = (least = 0): Promise<void> => {
      const ms = Math.max(next, least);
      next = Math.min(next * 1.5, most);
      return sleep(ms, request.signal);
    };
    if (options.follow === "events") await this.#listen(jobId, request, tell);
    else if (submitted) await pause();
    let answered = now();
    for (;;) {
      let least = 0;
      try {
        const job = await this.getJob(jobId, request);
        answered = now();
        tell(progressOf(job));
        if (job.status === "completed") return job;
        if (job.status === "failed") throw new JobFailedError(job);
      } catch (error) {
        request.signal?.throwIfAborted();
        if (!isTransient(error)) throw error;
        if (error instanceof RateLimitError) answered = now();
        else if (now() - answered >= (options.outageMs ?? 30_000)) throw error;
        if (error instanceof ApiError) least = (error.retryAfter ?? 0) * 1000;
      }
      await pause(least);
    }
  }

  /** Tells the progress that the events speak of, until they end. How the job ended is asked for afterwards. */
  async #listen(jobId: string, request: RequestOptions, tell: (progress: Progress) => void): Promise<void> {
    const { timeoutMs: _, ...options } = request;
    try {
      for await (const event of this.events(jobId, options)) {
        const job = event.data as Partial<Job> | null;
        if (job?.status === "pending" || job?.status === "processing") tell(progressOf({ ...job, jobId } as Job));
      }
    } catch (error) {
      request.signal?.throwIfAborted();
      if (!(error instanceof PixelDojoError)) throw error;
      // Polling gets the job's end nevertheless, or a better reason.
    }
  }
}

function progressOf(job: Job): Progress {
  const { progress, queuePosition, etaSeconds } = job as { [field in keyof Progress]?: unknown };
  const seen: Progress = {
    jobId: job.jobId,
    status: job.status,
    progress: job.status === "completed" ? 1 : typeof progress === "number" ? progress : 0,
  };
  if (typeof queuePosition === "number") seen.queuePosition = queuePosition;
  if (typeof etaSeconds === "number") seen.etaSeconds = etaSeconds;
  return seen;
}

/** Passes on what differs from what was told last. */
function teller(listener: ((progress: Progress) => void) | undefined): (progress: Progress) => void {
  let last = "";
  return (progress) => {
    const text = JSON.stringify(progress);
    if (text !== last) listener?.(progress);
    last = text;
  };
}
