import type { Fetch, RequestOptions } from "./http.js";
import type { ModelInputs } from "./models.generated.js";
import type { GeneralInput, JobStatus, Modality } from "./types.js";

export interface ClientOptions {
  /** `pd_…`. `PIXELDOJO_API_KEY` where there is an environment. Listing models needs none. */
  apiKey?: string | undefined;
  /** The service's address, with or without `/api/v1`. `PIXELDOJO_BASE_URL`, else `https://pixeldojo.ai/api/v1`. */
  baseUrl?: string | undefined;
  /** Another `fetch`. */
  fetch?: Fetch;
  /** The time limit of one attempt at a request, in milliseconds. 30,000. */
  timeoutMs?: number;
  /** How often a request that may do better in a moment is tried again. 4. */
  maxRetries?: number;
  /** The first retry waits for up to this many milliseconds, each further one up to twice as long, at most 8 s. 500. */
  retryBaseMs?: number;
  /** The longest `Retry-After` that is waited for; beyond it the error is raised at once. 60,000. */
  maxRetryAfterMs?: number;
  /** More headers for every request. */
  headers?: Record<string, string>;
}

export interface ListModelsOptions extends RequestOptions {
  modality?: Modality;
  /** Add each model's `requestSchema`. */
  detailed?: boolean;
}

export interface ListJobsOptions extends RequestOptions {
  /** From 1 to 100; 20. */
  limit?: number;
  /** The `nextCursor` of the page before. */
  cursor?: string | null;
  status?: JobStatus;
  model?: string;
  /** Only jobs submitted with the API key of this id. */
  key?: string;
  /** Only jobs with all of this metadata. */
  metadata?: Record<string, string | number | boolean>;
  /** Times with their zone, such as `2025-01-23T12:00:00Z`. */
  createdAfter?: string;
  createdBefore?: string;
}

export interface PageOptions extends RequestOptions {
  /** From 1 to 100. */
  limit?: number;
  /** The `nextCursor` of the page before. */
  cursor?: string | null;
}

export interface LedgerOptions extends PageOptions {
  kind?: "grant" | "charge" | "refund";
}

export interface UsageOptions extends RequestOptions {
  /** Times or days, UTC; the last 30 days if absent. */
  from?: string;
  to?: string;
  /** Any of `day`, `model` and `key`; `day` if absent. */
  groupBy?: ("day" | "model" | "key")[];
}

export interface RotateOptions extends RequestOptions {
  /** For how many seconds the old key goes on working; a day if absent. */
  graceSeconds?: number;
}

export interface RunOptions extends RequestOptions {
  /** Any text, new for each new job. The same one with the same input within 24 hours is the same job. */
  idempotencyKey?: string;
}

/** How far a job is. */
export interface Progress {
  jobId: string;
  status: JobStatus;
  /** From 0 to 1. */
  progress: number;
  queuePosition?: number;
  etaSeconds?: number;
}

export interface WaitOptions extends Omit<RequestOptions, "timeoutMs"> {
  /** The limit on all the waiting, in milliseconds; `Infinity` for none. Ten minutes. The job goes on beyond it. */
  timeoutMs?: number;
  /** The time limit of one request; the client's `timeoutMs` if absent. */
  requestTimeoutMs?: number;
  /** `poll` asks again and again; `events` listens, and polls where that is not to be had. `poll`. */
  follow?: "poll" | "events";
  /** The first wait between two polls; the waits grow by half. 1,000. */
  pollIntervalMs?: number;
  /** The longest wait between two polls. 5,000. */
  maxPollIntervalMs?: number;
  /** For how long the service may be unreachable while the job is waited for. 30,000. */
  outageMs?: number;
  /** Called whenever the status or the progress changes. */
  onProgress?: (progress: Progress) => void;
}

export interface GenerateOptions extends WaitOptions {
  idempotencyKey?: string;
}

export interface EventsOptions extends RequestOptions {
  /** Only what came after the event with this id. */
  lastEventId?: string;
}

/** The ids in `Models`, and any other. */
export type ModelId<Models = ModelInputs> = (keyof Models & string) | (string & {});

/** What a model takes: its own type if it is among `Models`, else the general one. */
export type InputOf<Id extends string, Models = ModelInputs> = Id extends keyof Models ? Models[Id] : GeneralInput;
