import type { FailedJob } from "./types.js";

/** What is known about an error beside its message. */
export interface ErrorFields {
  code?: string;
  status?: number | undefined;
  requestId?: string | undefined;
  retryAfter?: number | undefined;
  details?: ErrorDetail[];
  cause?: unknown;
}

/** One fault in the input: `path` is dotted (`prompt`), or empty for the whole body. */
export interface ErrorDetail {
  path: string;
  message: string;
}

/** Every error that this package raises by itself derives from this one. */
export class PixelDojoError extends Error {
  /** A word for programs: the service's code, or one of this package's (`connection_error`, `timeout`, …). */
  readonly code: string;
  /** The HTTP status, where there was an answer. */
  readonly status: number | undefined;
  /** The id of the request, to name when asking for help. */
  readonly requestId: string | undefined;
  /** The job that was waited for. It goes on: `waitForJob(jobId)` waits again. */
  jobId: string | undefined;
  /** The key a `run` was submitted under. With it and the same input, `run` can be repeated without a second charge. */
  idempotencyKey: string | undefined;

  constructor(message: string, fields: ErrorFields = {}) {
    super(message, "cause" in fields ? { cause: fields.cause } : undefined);
    this.name = "PixelDojoError";
    this.code = fields.code ?? "error";
    this.status = fields.status;
    this.requestId = fields.requestId;
  }
}

/** The service refused or failed, and said why. The classes below are its codes; an unknown code is a plain `ApiError`. */
export class ApiError extends PixelDojoError {
  /** Seconds after which it may be tried again, if the service said so. */
  readonly retryAfter: number | undefined;

  constructor(message: string, fields: ErrorFields = {}) {
    super(message, fields);
    this.name = "ApiError";
    this.retryAfter = fields.retryAfter;
  }
}

/** `unauthorized`: the API key is missing or not valid. */
export class UnauthorizedError extends ApiError {
  constructor(message: string, fields?: ErrorFields) {
    super(message, fields);
    this.name = "UnauthorizedError";
  }
}

/** `invalid_json`: the request's body was not JSON. */
export class InvalidJSONError extends ApiError {
  constructor(message: string, fields?: ErrorFields) {
    super(message, fields);
    this.name = "InvalidJSONError";
  }
}

/** `validation_error`: the input is not valid. `details` names every fault. */
export class ValidationError extends ApiError {
  readonly details: ErrorDetail[];

  constructor(message: string, fields: ErrorFields = {}) {
    super(message, fields);
    this.name = "ValidationError";
    this.details = fields.details ?? [];
  }
}

/** `insufficient_credits`: the account has too few credits for this job. */
export class InsufficientCreditsError extends ApiError {
  constructor(message: string, fields?: ErrorFields) {
    super(message, fields);
    this.name = "InsufficientCreditsError";
  }
}

/** `not_found`: there is no such model, job, webhook or file. */
export class NotFoundError extends ApiError {
  constructor(message: string, fields?: ErrorFields) {
    super(message, fields);
    this.name = "NotFoundError";
  }
}

/** `expired`: the job or file has expired and was removed. */
export class ExpiredError extends ApiError {
  constructor(message: string, fields?: ErrorFields) {
    super(message, fields);
    this.name = "ExpiredError";
  }
}

/** `rate_limit_exceeded`: too many requests; `retryAfter` says for how many seconds to wait. */
export class RateLimitError extends ApiError {
  constructor(message: string, fields?: ErrorFields) {
    super(message, fields);
    this.name = "RateLimitError";
  }
}

/** `internal_error`, `credit_error` or `submission_failed`: something went wrong in the service; nothing was charged. */
export class ServerError extends ApiError {
  constructor(message: string, fields?: ErrorFields) {
    super(message, fields);
    this.name = "ServerError";
  }
}

/** The service can't be reached, or the connection broke. */
export class ConnectionError extends PixelDojoError {
  constructor(message: string, fields: ErrorFields = {}) {
    super(message, { code: "connection_error", ...fields });
    this.name = "ConnectionError";
  }
}

/** No answer in time. With a `jobId`: the job did not end in time, and goes on. */
export class TimeoutError extends PixelDojoError {
  constructor(message: string, fields: ErrorFields = {}) {
    super(message, { code: "timeout", ...fields });
    this.name = "TimeoutError";
  }
}

/** An answer that PixelDojo does not give: HTML, broken JSON, a wrong shape. Check `baseUrl`, and what stands between. */
export class InvalidResponseError extends PixelDojoError {
  /** The beginning of the answer. */
  readonly body: string;

  constructor(message: string, fields: ErrorFields = {}, body = "") {
    super(message, { code: "invalid_response", ...fields });
    this.name = "InvalidResponseError";
    this.body = body.slice(0, 1000);
  }
}

/** The job failed or was cancelled, and its credits were refunded. `code` and `message` are the job's. */
export class JobFailedError extends PixelDojoError {
  readonly job: FailedJob;

  constructor(job: FailedJob) {
    super(job.error.message, { code: job.error.code });
    this.name = "JobFailedError";
    this.job = job;
    this.jobId = job.jobId;
  }
}

/** A webhook that is not signed by the secret, or not now. Answer it with 401 and don't act on it. */
export class WebhookVerificationError extends PixelDojoError {
  constructor(message: string, fields: ErrorFields = {}) {
    super(message, { code: "webhook_verification_failed", ...fields });
    this.name = "WebhookVerificationError";
  }
}
