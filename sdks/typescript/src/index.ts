export { PixelDojoClient } from "./client.js";
export * from "./errors.js";
export type { Fetch, RequestOptions } from "./http.js";
export type * from "./models.generated.js";
export type * from "./options.js";
export type * from "./types.js";
export { VERSION } from "./version.js";
export { verifyWebhook } from "./webhooks.js";
export type { VerifyOptions, WebhookHeaders } from "./webhooks.js";
