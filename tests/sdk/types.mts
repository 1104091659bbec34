// Type-checked, never run: what users of the TypeScript SDK may write, and what must not pass.
import {
  PixelDojoClient, ValidationError, type ApiKey, type Asset, type CompletedJob, type DojoMiniInput, type Job,
  type JobEvent, type ModelInputs, type NewKey, type Progress, type Receipt,
} from "@pixeldojo/sdk";

const pd = new PixelDojoClient({ apiKey: "pd_x", fetch: globalThis.fetch, baseUrl: undefined });

const job: CompletedJob = await pd.generate("dojo-mini", { prompt: "panda", aspect_ratio: "16:9", format: "webp" });
const asset: Asset | undefined = job.assets[0];
const receipt: Receipt = await pd.run("dojo-mini", { prompt: "panda" }, { signal: AbortSignal.timeout(5), idempotencyKey: "k" });
await pd.generate("some-other-model", { prompt: "x", duration: 5, what_ever: [1] });
await pd.generate(receipt.jobId as string, {});
// @ts-expect-error a prompt is required
await pd.run("dojo-mini", {});
// @ts-expect-error not one of its ratios
await pd.run("dojo-mini", { prompt: "x", aspect_ratio: "21:9" });
// @ts-expect-error not one of its parameters
await pd.run("dojo-mini", { prompt: "x", seeds: 1 });
// @ts-expect-error not a number
await pd.run("other", { prompt: "x", seed: "1" });
// @ts-expect-error not a modality
await pd.listModels({ modality: "sound" });

const input: DojoMiniInput = { prompt: "x", metadata: { order: 1 } };
await pd.estimate("dojo-mini", input, { timeoutMs: 1 });

function show(seen: Job): string {
  switch (seen.status) {
    case "completed":
      return seen.assets.map(({ url }) => url).join();
    case "failed":
      return seen.error.message;
    case "processing":
      return String(seen.progress);
    case "pending":
      return String(seen.queuePosition);
  }
}
show(await pd.getJob("job_1"));
for (const each of (await pd.listJobs({ limit: 1, cursor: null })).jobs) {
  if (each.status === "completed" && !each.expired) each.assets.length;
}
for await (const event of pd.events("job_1")) {
  const typed: JobEvent = event;
  if (typed.type === "completed") typed.data.assets.length;
}
const onProgress = ({ progress, etaSeconds }: Progress): void => void (progress + (etaSeconds ?? 0));
await pd.waitForJob("job_1", { onProgress, follow: "events" });
const body: ReadableStream<Uint8Array> | null = (await pd.downloadAsset(asset ?? "https://example.com")).body;
const bytes: number = await pd.saveAsset("https://example.com", new URL("file:///x"));
const { type, data } = await pd.verifyWebhook("{}", new Headers(), ["a", "b"]);
const schema: unknown = (await pd.getModelSchema("dojo-mini")).schema["properties"];
const credits: number = (await pd.account()).credits;
const made: NewKey = await pd.createKey({ name: "ci", scopes: ["jobs:read"], expiresIn: 60 });
// @ts-expect-error a name is required
await pd.createKey({ scopes: ["jobs:read"] });
const { replaces }: { replaces: ApiKey } = await pd.rotateKey(made.id, { graceSeconds: 0 });
// @ts-expect-error not a group
await pd.usage({ groupBy: ["hour"] });
const spent: number = (await pd.usage({ groupBy: ["key"] })).total.net + (await pd.ledger({ kind: "refund" })).entries.length;
const removed: boolean = (await pd.deleteJob("job_1", { signal: AbortSignal.timeout(5) })).deleted;
await pd.verifyWebhook("{}", {}, (await pd.webhookSecret()).secrets.map(({ secret }) => secret));

interface Mine { "my-model": { prompt: string; strength: number } }
const mine = new PixelDojoClient<Mine>();
await mine.run("my-model", { prompt: "x", strength: 1 });
// @ts-expect-error strength is required
await mine.run("my-model", { prompt: "x" });
await mine.run("dojo-mini", { anything: 1 });

const known: keyof ModelInputs = "dojo-mini";
if (new Error() instanceof ValidationError) throw new Error(known);
export { body, bytes, credits, data, schema, type };
