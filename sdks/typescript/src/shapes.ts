/** Checks of what came over the wire: the fields this package and its types rest on are there, and of their kind. */

import type {
  Account, ApiKey, Cancellation, Estimate, ExpiredJob, Job, JobList, KeyList, Ledger, ModelDetail, ModelList, ModelSchema,
  NewKey, Receipt, Removal, RotatedKey, Usage, Webhook, WebhookReplay, WebhookSecrets,
} from "./types.js";

type Fields = Record<string, unknown>;

/** Thrown by the checks; the caller adds what was asked. */
export class ShapeFault extends Error {}

function need(holds: boolean, fault: string): asserts holds {
  if (!holds) throw new ShapeFault(fault);
}

export function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function object(value: unknown, what: string): Fields {
  need(isObject(value), `${what} is not an object`);
  return value;
}

function texts(value: unknown, what: string, ...names: string[]): Fields {
  const fields = object(value, what);
  for (const name of names) need(typeof fields[name] === "string", `${what} has no \`${name}\``);
  return fields;
}

function numbers(fields: Fields, what: string, ...names: string[]): void {
  for (const name of names) need(typeof fields[name] === "number", `${what} has no \`${name}\``);
}

function list(fields: Fields, name: string, each: (value: unknown) => void): void {
  const values = fields[name];
  need(Array.isArray(values), `\`${name}\` is not a list`);
  values.forEach(each);
}

function model(value: unknown): void {
  texts(value, "a model", "apiId");
}

export function modelList(value: unknown): ModelList {
  const fields = object(value, "the answer");
  list(fields, "models", model);
  return value as ModelList;
}

export function modelDetail(value: unknown): ModelDetail {
  model(value);
  return value as ModelDetail;
}

export function modelSchema(value: unknown): ModelSchema {
  object(texts(value, "the answer", "apiId")["schema"], "`schema`");
  return value as ModelSchema;
}

export function receipt(value: unknown): Receipt {
  texts(value, "the receipt", "jobId", "status");
  return value as Receipt;
}

export function job(value: unknown): Job {
  const fields = texts(value, "the job", "jobId", "status");
  if (fields["status"] === "completed" && fields["expired"] !== true) {
    list(fields, "assets", (asset) => texts(asset, "an asset", "url"));
  }
  if (fields["status"] === "failed") texts(fields["error"], "the job's `error`", "code", "message");
  return value as Job;
}

export function jobList(value: unknown): JobList {
  const fields = object(value, "the answer");
  list(fields, "jobs", job as (value: unknown) => ExpiredJob | Job);
  return value as JobList;
}

export function webhook(value: unknown): Webhook {
  texts(value, "the webhook", "url", "status");
  return value as Webhook;
}

export function replay(value: unknown): WebhookReplay {
  texts(value, "the answer", "jobId");
  return value as WebhookReplay;
}

export function cancellation(value: unknown): Cancellation {
  texts(value, "the answer", "jobId", "result");
  return value as Cancellation;
}

export function estimate(value: unknown): Estimate {
  numbers(object(value, "the answer"), "the estimate", "creditCost");
  return value as Estimate;
}

export function account(value: unknown): Account {
  numbers(object(value, "the answer"), "the account", "credits");
  return value as Account;
}

export function removal(value: unknown): Removal {
  texts(value, "the answer", "jobId");
  return value as Removal;
}

export function usage(value: unknown): Usage {
  const fields = object(value, "the answer");
  list(fields, "rows", (row) => numbers(object(row, "a row"), "a row", "net"));
  numbers(object(fields["total"], "`total`"), "`total`", "net");
  return value as Usage;
}

export function ledger(value: unknown): Ledger {
  list(object(value, "the answer"), "entries", (entry) => {
    numbers(texts(entry, "an entry", "id", "kind"), "an entry", "amount");
  });
  return value as Ledger;
}

export function key(value: unknown): ApiKey {
  texts(value, "the key", "id", "prefix");
  return value as ApiKey;
}

export function keyList(value: unknown): KeyList {
  list(object(value, "the answer"), "keys", key);
  return value as KeyList;
}

export function newKey(value: unknown): NewKey {
  texts(value, "the new key", "id", "key");
  return value as NewKey;
}

export function rotatedKey(value: unknown): RotatedKey {
  key(texts(value, "the new key", "id", "key")["replaces"]);
  return value as RotatedKey;
}

export function webhookSecrets(value: unknown): WebhookSecrets {
  list(texts(value, "the answer", "secret"), "secrets", (each) => texts(each, "a secret", "secret"));
  return value as WebhookSecrets;
}
