/** Webhooks: whether one was signed by the account's secret, as Standard Webhooks says. */

import { webCrypto } from "./crypto.js";
import { WebhookVerificationError } from "./errors.js";
import { isObject } from "./shapes.js";
import type { WebhookEvent } from "./types.js";

/** Request headers, as web requests or Node.js have them. */
export type WebhookHeaders = Headers | Record<string, string | string[] | undefined>;

export interface VerifyOptions {
  /** How far the sender's clock and this one may differ, in seconds. 300. */
  toleranceS?: number;
  /** The time to compare with, in seconds since 1970: for tests. */
  now?: number;
}

function header(headers: WebhookHeaders, name: string): string {
  if (typeof (headers as Headers).get === "function") return (headers as Headers).get(name) ?? "";
  for (const [key, value] of Object.entries(headers as Record<string, string | string[] | undefined>)) {
    if (key.toLowerCase() === name) return (Array.isArray(value) ? value.join(" ") : value) ?? "";
  }
  return "";
}

function base64(text: string): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  } catch {
    return undefined;
  }
}

function secretBytes(secret: string): Uint8Array<ArrayBuffer> {
  const bytes = base64(secret.trim().replace(/^whsec_/, ""));
  if (!bytes?.length) throw new TypeError("a webhook secret is `whsec_` and base64, as the account shows it");
  return bytes;
}

/**
 * The event in a webhook that is signed by the secret (or one of several), within the tolerated time.
 *
 * `payload` is the body as it came, byte for byte: not parsed and written again. Rejects with
 * `WebhookVerificationError`.
 */
export async function verifyWebhook(
  payload: string | Uint8Array | ArrayBuffer,
  headers: WebhookHeaders,
  secret: string | readonly string[],
  options: VerifyOptions = {},
): Promise<WebhookEvent> {
  const id = header(headers, "webhook-id");
  const timestamp = header(headers, "webhook-timestamp");
  const signatures = header(headers, "webhook-signature");
  if (!id || !timestamp || !signatures) {
    const wanted = "`webhook-id`, `webhook-timestamp`, `webhook-signature`";
    throw new WebhookVerificationError(`the webhook lacks one of its headers: ${wanted}`);
  }
  if (!/^\d{1,15}$/.test(timestamp)) throw new WebhookVerificationError("`webhook-timestamp` is not a time");
  const off = (options.now ?? Date.now() / 1000) - Number(timestamp);
  if (Math.abs(off) > (options.toleranceS ?? 300)) {
    const far = `${Math.round(Math.abs(off))} s ${off > 0 ? "old" : "in the future"}`;
    throw new WebhookVerificationError(`the webhook is ${far}; is the clock here right?`);
  }
  const body = typeof payload === "string" ? new TextEncoder().encode(payload) : new Uint8Array(payload);
  const head = new TextEncoder().encode(`${id}.${timestamp}.`);
  const signed = new Uint8Array(head.length + body.length);
  signed.set(head);
  signed.set(body, head.length);
  if (!(await isSigned(signed, signatures, typeof secret === "string" ? [secret] : secret))) {
    throw new WebhookVerificationError("the webhook is not signed by this secret");
  }
  return event(body);
}

async function isSigned(signed: Uint8Array<ArrayBuffer>, signatures: string, secrets: readonly string[]) {
  const { subtle } = await webCrypto();
  const given = signatures.split(" ").slice(0, 20).flatMap((each) => {
    const bytes = each.startsWith("v1,") ? base64(each.slice(3)) : undefined;
    return bytes ? [bytes] : [];
  });
  for (const secret of secrets) {
    const how = { name: "HMAC", hash: "SHA-256" };
    const key = await subtle.importKey("raw", secretBytes(secret), how, false, ["verify"]);
    for (const bytes of given) {
      if (await subtle.verify("HMAC", key, bytes, signed)) return true; // in constant time
    }
  }
  return false;
}

function event(body: Uint8Array): WebhookEvent {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(body));
  } catch (cause) {
    throw new WebhookVerificationError("the webhook is signed, but not JSON", { cause });
  }
  if (!isObject(value) || typeof value["type"] !== "string" || !isObject(value["data"])) {
    throw new WebhookVerificationError("the webhook is signed, but not an event");
  }
  return value as unknown as WebhookEvent;
}
