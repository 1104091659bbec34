/** What the API says, field by field as it goes over the wire. New fields may come: ignore what you don't know. */

export type Modality = "image" | "video";

export type Capability =
  | "text-to-image"
  | "image-to-image"
  | "inpainting"
  | "upscale"
  | "text-to-video"
  | "image-to-video"
  | (string & {});

/** A JSON Schema, draft 2020-12. */
export interface JSONSchema {
  [keyword: string]: unknown;
}

/** How a job's cost follows from its input. */
export interface CreditCost {
  /**
   * `fixed`: `amount` · `per_image`: `amount` × `num_outputs` · `per_second`: `amount` × `duration` ·
   * `by_resolution`: `amounts[input[parameter]]` × `num_outputs`.
   */
  type: "fixed" | "per_image" | "per_second" | "by_resolution" | (string & {});
  /** The price of one unit; with `by_resolution`, the lowest. */
  amount: number;
  /** The cost of a job that leaves every parameter at its default. */
  default: number;
  amounts?: Record<string, number>;
  parameter?: string;
}

/** A model, as the list shows it. */
export interface Model {
  apiId: string;
  name: string;
  description: string;
  modality: Modality;
  capabilities: Capability[];
  creditCost: CreditCost;
  /** With `detailed: true`. */
  requestSchema?: JSONSchema;
}

/** A model with all that is known about it. */
export interface ModelDetail extends Model {
  requestSchema: JSONSchema;
  /** Inputs that work as they stand. */
  examples: Record<string, unknown>[];
  useCases: string[];
  limits: string[];
  /** How the price is computed, in a sentence. */
  pricing: string;
  license: { weights: string; notices: string[] };
}

export interface ModelList {
  models: Model[];
  total: number;
  imageCount: number;
  videoCount: number;
}

export interface ModelSchema {
  apiId: string;
  /** What the input of `run` may contain. */
  schema: JSONSchema;
}

/** What models usually take; `getModelSchema` has what a model takes exactly. */
export interface GeneralInput {
  prompt?: string;
  /** The input picture of image-conditioned and image-to-video models: a URL or data URI. */
  image_url?: string;
  aspect_ratio?: string;
  /** Seconds; video models only. */
  duration?: number;
  num_outputs?: number;
  seed?: number;
  /** Where to send the result when the job ends. */
  webhook_url?: string;
  /** Up to 16 names of your own, echoed in the job and its webhook. */
  metadata?: Record<string, string | number | boolean>;
  /** Refuse the job when it would cost more credits than this. */
  max_credit_cost?: number;
  [parameter: string]: unknown;
}

export type JobStatus = "pending" | "processing" | "completed" | "failed";

/** A submitted job: it is charged and queued. */
export interface Receipt {
  jobId: string;
  status: JobStatus;
  /** Where to poll: absolute, and works as it stands (with the key). */
  statusUrl: string;
  creditCost: number;
  creditsRemaining: number;
  expiresAt: string;
}

/** One file that a job made. */
export interface Asset {
  /** Signed: fetch it as it stands, without a key, until the job's `expiresAt`. */
  url: string;
  type: Modality;
  contentType: string;
  width: number;
  height: number;
  bytes: number;
  /** The seed that makes this one again. */
  seed: number;
  /** Only of videos. */
  durationSeconds?: number;
}

/** Where the results are, in short: `images` and `image`, or `videos` and `video`. */
export interface Output {
  images?: string[];
  /** The first of `images`. */
  image?: string | null;
  videos?: string[];
  /** The first of `videos`. */
  video?: string | null;
}

/** How far the delivery of a job's webhook is. */
export interface WebhookStatus {
  url: string;
  status: string;
  /** How many attempts there were. */
  attempts: number;
  lastAttemptAt?: string | null;
  lastResponseStatus?: number | null;
  nextAttemptAt?: string | null;
}

interface JobBase {
  jobId: string;
  /** The `apiId` of the model. */
  model: string;
  modality: Modality;
  /** The parameters the job runs with, defaults and seed filled in. */
  input: Record<string, unknown>;
  creditCost: number;
  createdAt: string;
  startedAt: string | null;
  completedAt: string | null;
  expiresAt: string;
  metadata?: Record<string, unknown>;
  webhook?: WebhookStatus;
}

export interface PendingJob extends JobBase {
  status: "pending";
  queuePosition?: number;
  etaSeconds?: number | null;
}

export interface ProcessingJob extends JobBase {
  status: "processing";
  /** From 0 to 1. */
  progress: number;
}

export interface CompletedJob extends JobBase {
  status: "completed";
  output: Output;
  /** The results, in the same order as in `output`. */
  assets: Asset[];
  metrics?: { engineSeconds?: number };
  expired?: false;
}

/** In lists only: a completed job whose results have expired. */
export interface ExpiredJob extends JobBase {
  status: "completed";
  expired: true;
}

export interface FailedJob extends JobBase {
  status: "failed";
  error: { code: string; message: string };
  creditsRefunded: number;
}

export type Job = PendingJob | ProcessingJob | CompletedJob | FailedJob;

export interface JobList {
  jobs: (Job | ExpiredJob)[];
  /** Pass it as `cursor` for the next page; null on the last page. */
  nextCursor: string | null;
}

/** One attempt to deliver a webhook. */
export interface WebhookAttempt {
  number: number;
  at: string;
  durationMs: number;
  responseStatus: number | null;
  error: string | null;
  /** The first 2 kB of what the receiver answered. */
  response: string | null;
}

/** A job's webhook and every attempt to deliver it. */
export interface Webhook extends WebhookStatus {
  events: string[];
  deliveries: {
    /** The `webhook-id`, the same in every attempt. */
    id: string;
    type: string;
    status: string;
    createdAt: string;
    nextAttemptAt: string | null;
    attempts: WebhookAttempt[];
  }[];
}

export interface WebhookReplay {
  jobId: string;
  webhookId: string;
  webhook: WebhookStatus;
}

export interface Cancellation {
  jobId: string;
  /** `cancelling`: it is being worked on, and ends within moments. `too_late`: it had ended. */
  result: "cancelled" | "cancelling" | "too_late";
  status: JobStatus;
}

export interface Estimate {
  apiId: string;
  creditCost: number;
  creditsRemaining: number;
  affordable: boolean;
  queuePosition: number | null;
  etaSeconds: number | null;
}

/** What a key may do. `account:write` manages keys and secrets; `admin` includes all the others. */
export type Scope = "jobs:read" | "jobs:write" | "account:read" | "account:write" | "admin" | (string & {});

/** An API key, without its text. */
export interface ApiKey {
  id: string;
  /** How the key's text begins. */
  prefix: string;
  name: string;
  status: "active" | "expired" | "revoked" | (string & {});
  scopes: Scope[];
  /** The only models it may run; null for all. */
  models: string[] | null;
  /** Keys with the same one share `capCredits` and `spentCredits`. */
  budgetId: string;
  /** The most credits it may spend in all. */
  capCredits: number | null;
  spentCredits: number;
  /** Its own, such as `600/minute`; null for the service's. */
  rateLimit: string | null;
  createdAt: string;
  expiresAt: string | null;
  revokedAt: string | null;
  /** The id of the key that took its place. */
  replacedBy: string | null;
}

/** A key that was just made: the only time its text is shown. */
export interface NewKey extends ApiKey {
  /** The key's text: keep it. */
  key: string;
}

/** A key that took the place of another, which works until its `expiresAt`. */
export interface RotatedKey extends NewKey {
  replaces: ApiKey;
}

/** What a new key shall be: no more than the one that makes it. */
export interface KeyTerms {
  /** What it is for. */
  name: string;
  scopes?: Scope[];
  /** The only models it may run. */
  models?: string[];
  /** The most credits it may spend in all. */
  capCredits?: number;
  /** A time such as `2030-01-31T12:00:00Z`, or `expiresIn`: seconds from now. */
  expiresAt?: string;
  expiresIn?: number;
  /** Such as `600/minute`. */
  rateLimit?: string;
}

export interface KeyList {
  /** Newest first; revoked ones too. */
  keys: ApiKey[];
  nextCursor: string | null;
}

/** What jobs cost, in credits. */
export interface UsageSums {
  jobs: number;
  charged: number;
  refunded: number;
  /** `charged` less `refunded`. */
  net: number;
}

export interface Usage {
  from: string;
  to: string;
  groupBy: ("day" | "model" | "key")[];
  /** Each with the fields of its groups. */
  rows: (UsageSums & { day?: string; model?: string; keyId?: string })[];
  total: UsageSums;
}

/** Credits that came or went. */
export interface LedgerEntry {
  id: string;
  kind: "grant" | "charge" | "refund" | (string & {});
  amount: number;
  /** What the account held after it. */
  credits: number;
  jobId: string | null;
  keyId: string | null;
  model: string | null;
  note: string | null;
  createdAt: string;
}

export interface Ledger {
  /** Newest first. */
  entries: LedgerEntry[];
  nextCursor: string | null;
}

/** What signs the account's webhooks. Give all of `secrets` to `verifyWebhook` while they are rotated. */
export interface WebhookSecrets {
  /** The one that signs from now on: `whsec_…`. */
  secret: string;
  secrets: { secret: string; createdAt: string; expiresAt: string | null }[];
}

export interface Removal {
  jobId: string;
  deleted: boolean;
}

/** The account of the API key: its balance, the key, and what limits both. */
export interface Account {
  id: string;
  name: string;
  credits: number;
  createdAt: string;
  key: ApiKey;
  limits: { rateLimit: string; concurrency: number | null; [field: string]: unknown };
}

/** How a result will look, while it is still being made: `picture` is a data URL. */
export interface Preview {
  jobId: string;
  progress: number;
  picture: string;
}

/** Something that happened to a job; `data` is the job at that moment. New types may come: have a `default`. */
export type JobEvent =
  | { type: "status"; id: string; data: PendingJob | ProcessingJob }
  | { type: "progress"; id: string; data: ProcessingJob }
  | { type: "preview"; id: string; data: Preview }
  | { type: "completed"; id: string; data: CompletedJob }
  | { type: "failed"; id: string; data: FailedJob };

/** The body of a webhook. */
export interface WebhookEvent {
  type: "job.completed" | "job.failed" | (string & {});
  timestamp: string;
  /** The job, as `getJob` showed it when it ended. */
  data: CompletedJob | FailedJob;
}
