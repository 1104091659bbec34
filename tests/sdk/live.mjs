// What the TypeScript SDK does with a running service. Every runtime runs this same file:
//
//     await live(sdk, { folder })          with PIXELDOJO_BASE_URL, PIXELDOJO_API_KEY, POOR_KEY, OWNER_KEY and WEBHOOK_SECRET
//                                         in the environment
//
// It throws at the first thing that is not as it must be, and returns the names of what the service does not have.
import { mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";

const PNG = "89504e470d0a1a0a";

function ok(holds, text) {
  if (!holds) throw new Error(text ?? "not as it must be");
}

function equal(seen, wanted) {
  const [a, b] = [seen, wanted].map((each) => JSON.stringify(each));
  ok(a === b, `${a} is not ${b}`);
}

async function fails(promise, kind, fields = {}) {
  let outcome;
  try {
    outcome = { result: await promise };
  } catch (error) {
    if (!(error instanceof kind)) throw error;
    for (const [name, value] of Object.entries(fields)) equal(error[name], value);
    return error;
  }
  throw new Error(`no ${kind.name}, but ${JSON.stringify(outcome.result)}`);
}

export async function live(sdk, { folder }) {
  const pd = new sdk.PixelDojoClient();
  const quick = { pollIntervalMs: 20, timeoutMs: 20_000 };
  const missing = [];

  /** `work`, unless the service has no such route. */
  async function where(name, work) {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof sdk.NotFoundError) || !/^There is nothing at/.test(error.message)) throw error;
      missing.push(name);
    }
  }

  // The catalogue, without a key
  const open = new sdk.PixelDojoClient({ apiKey: "" });
  const { models, total, imageCount } = await open.listModels({ modality: "image", detailed: true });
  ok(total === models.length && imageCount >= 2);
  const card = models.find(({ apiId }) => apiId === "testcard");
  equal(card.requestSchema, (await open.getModelSchema("testcard")).schema);
  equal((await open.getModel("testcard")).creditCost, { type: "per_image", amount: 1, default: 1 });

  // Submit, wait, download: the same seed gives the same picture
  const seen = [];
  const input = { prompt: "bars", seed: 7, num_outputs: 2 };
  const job = await pd.generate("testcard", input, { ...quick, onProgress: ({ status }) => seen.push(status) });
  equal([job.status, job.model, job.creditCost, job.input.seed], ["completed", "testcard", 2, 7]);
  equal([seen[0], seen.at(-1)], ["pending", "completed"]);
  equal(job.assets.map(({ url, seed, contentType }) => [url, seed, contentType]),
        job.output.images.map((url, number) => [url, 7 + number, "image/png"]));
  mkdirSync(folder, { recursive: true });
  const path = `${folder}/made/here/0.png`;
  equal(await pd.saveAsset(job.assets[0], path), job.assets[0].bytes);
  const saved = new Uint8Array(readFileSync(path));
  equal(Array.from(saved.slice(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join(""), PNG);
  const again = await pd.generate("testcard", { prompt: "bars", seed: 7 }, quick);
  const same = new Uint8Array(await (await pd.downloadAsset(again.assets[0])).arrayBuffer());
  equal(Array.from(same), Array.from(saved));
  const other = await pd.generate("testcard", { prompt: "bars", seed: 8 }, quick);
  let bytes = [];
  for await (const chunk of (await pd.downloadAsset(other.assets[0].url)).body) bytes.push(...chunk);
  ok(bytes.length === other.assets[0].bytes && JSON.stringify(bytes) !== JSON.stringify(Array.from(saved)));

  // In steps, under one idempotency key
  const idempotencyKey = `live ${Date.now()} ${Math.random()}`;
  const receipt = await pd.run("testcard", { prompt: "once" }, { idempotencyKey });
  equal((await pd.run("testcard", { prompt: "once" }, { idempotencyKey })).jobId, receipt.jobId);
  ok(receipt.statusUrl.endsWith(`/api/v1/jobs/${receipt.jobId}`) && receipt.creditsRemaining > 0);
  equal((await pd.waitForJob(receipt.jobId, quick)).jobId, receipt.jobId);
  const first = await pd.listJobs({ limit: 2, status: "completed", model: "testcard" });
  ok(first.jobs.length === 2 && first.jobs.some(({ jobId }) => jobId === receipt.jobId));
  const second = await pd.listJobs({ limit: 2, cursor: first.nextCursor });
  ok(second.jobs.every(({ jobId }) => first.jobs.every((each) => each.jobId !== jobId)));

  // Errors
  const wrong = new sdk.PixelDojoClient({ apiKey: "pd_wrong" });
  await fails(wrong.getJob(job.jobId), sdk.UnauthorizedError, { code: "unauthorized", status: 401 });
  await fails(open.run("testcard", { prompt: "x" }), sdk.UnauthorizedError);
  await fails(pd.generate("no-such-model", { prompt: "x" }), sdk.NotFoundError, { code: "not_found", status: 404 });
  await fails(pd.getJob("job_unknown"), sdk.NotFoundError);
  const invalid = await fails(pd.run("testcard", { prompt: "x", num_outputs: 9, seeds: 1 }), sdk.ValidationError, { status: 400 });
  equal(invalid.details.map(({ path: where }) => where).sort(), ["num_outputs", "seeds"]);
  ok(invalid.requestId?.startsWith("req_"));
  const poor = new sdk.PixelDojoClient({ apiKey: globalThis.process.env.POOR_KEY });
  await fails(poor.generate("testcard", { prompt: "x" }), sdk.InsufficientCreditsError, { status: 402 });
  await fails(poor.getJob(job.jobId), sdk.NotFoundError); // another account's
  const failed = await fails(pd.generate("testcard", { prompt: "!refuse" }, quick), sdk.JobFailedError);
  equal([failed.job.status, failed.job.creditsRefunded, failed.jobId], ["failed", 1, failed.job.jobId]);
  await fails(pd.downloadAsset(job.assets[0].url.replace("signature=", "signature=0")), sdk.NotFoundError);
  const gone = new sdk.PixelDojoClient({ baseUrl: "http://127.0.0.1:9", maxRetries: 1, retryBaseMs: 1 });
  await fails(gone.run("testcard", { prompt: "x" }), sdk.ConnectionError, { code: "connection_error" });
  const site = new sdk.PixelDojoClient({ baseUrl: job.assets[0].url.split("?")[0] });
  await fails(site.listModels(), sdk.PixelDojoError);
  const late = await fails(pd.generate("testcard", { prompt: "!slow" }, { ...quick, timeoutMs: 300 }), sdk.TimeoutError);
  ok(late.jobId?.startsWith("job_"));
  const reason = new Error("enough");
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 50);
  const aborted = await fails(pd.waitForJob(late.jobId, { ...quick, signal: controller.signal }), Error);
  ok(aborted === reason);

  await where("events and cancel", async () => {
    const types = [];
    for await (const event of pd.events(late.jobId)) {
      types.push(event.type);
      if (types.length === 2) equal((await pd.cancel(late.jobId)).jobId, late.jobId);
    }
    equal(types.at(-1), "failed");
    ok(types.includes("progress"), types.join());
    equal((await pd.getJob(late.jobId)).error.code, "cancelled");
    await fails(pd.waitForJob(late.jobId), sdk.JobFailedError, { code: "cancelled" });
    equal((await pd.cancel(late.jobId)).result, "too_late");
    const followed = await pd.generate("testcard", { prompt: "bars" }, { follow: "events", timeoutMs: 20_000 });
    equal(followed.status, "completed");
  });
  await where("estimate", async () => {
    equal((await pd.estimate("testcard", { prompt: "x", num_outputs: 3 })).creditCost, 3);
    await fails(pd.estimate("testcard", {}), sdk.ValidationError);
  });
  await where("account", async () => {
    const account = await pd.account();
    ok(account.credits > 0 && account.key.scopes.length > 0);
  });
  await where("removal", async () => {
    equal(await pd.deleteJob(other.jobId), { jobId: other.jobId, deleted: true });
    await fails(pd.getJob(other.jobId), sdk.ExpiredError, { status: 410 });
    await fails(pd.downloadAsset(other.assets[0]), sdk.ExpiredError);
    await fails(pd.deleteJob("job_unknown"), sdk.NotFoundError);
  });
  await where("usage and ledger", async () => {
    const { rows, total } = await pd.usage({ groupBy: ["model", "day"] });
    ok(rows.some(({ model, day, jobs }) => model === "testcard" && /^\d{4}-\d\d-\d\d$/.test(day) && jobs > 0));
    ok(Math.abs(total.net - rows.reduce((sum, { net }) => sum + net, 0)) < 0.001);
    const { entries, nextCursor } = await pd.ledger({ limit: 1, kind: "charge" });
    ok(entries[0].amount < 0 && entries[0].model === "testcard");
    ok((await pd.ledger({ limit: 1, kind: "charge", cursor: nextCursor })).entries[0].id !== entries[0].id);
    await fails(pd.usage({ from: "2030-01-02", to: "2030-01-01" }), sdk.ValidationError);
  });
  await where("keys", () => keys(sdk, pd));
  await where("webhooks", () => webhook(sdk, pd, quick));
  return missing;
}

async function keys(sdk, pd) {
  const owner = new sdk.PixelDojoClient({ apiKey: globalThis.process.env.OWNER_KEY });
  const terms = { name: "ci", scopes: ["jobs:read"], models: ["testcard"], capCredits: 1.5, expiresIn: 3600 };
  const made = await owner.createKey(terms);
  equal([made.name, made.scopes, made.models, made.capCredits], ["ci", ["jobs:read"], ["testcard"], 1.5]);
  const client = new sdk.PixelDojoClient({ apiKey: made.key });
  equal((await client.listJobs()).jobs, []);
  await fails(client.createKey({ name: "more" }), sdk.UnauthorizedError);
  await fails(pd.listKeys(), sdk.UnauthorizedError); // it has not the scope
  await fails(owner.createKey({ name: "" }), sdk.ValidationError);
  const turned = await owner.rotateKey(made.id, { graceSeconds: 0 });
  equal([turned.replaces.id, turned.budgetId], [made.id, made.budgetId]);
  await fails(client.listJobs(), sdk.UnauthorizedError);
  ok((await owner.listKeys({ limit: 1 })).nextCursor && (await owner.listKeys()).keys.some(({ id }) => id === turned.id));
  equal((await owner.revokeKey(turned.id)).status, "revoked");
  equal((await owner.revokeKey(turned.id)).status, "revoked");
  const { secret } = await owner.webhookSecret();
  const rotated = await owner.rotateWebhookSecret();
  equal(rotated.secrets.map((each) => each.secret), [rotated.secret, secret]);
  equal((await owner.webhookSecret()).secret, rotated.secret);
}

async function webhook(sdk, pd, quick) {
  const secret = globalThis.process.env.WEBHOOK_SECRET;
  const came = [];
  let heard;
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += chunk));
    request.on("end", () => {
      came.push({ body, headers: request.headers });
      response.writeHead(204).end();
      heard?.();
    });
  });
  const wait = async (count) => {
    while (came.length < count) await new Promise((resolve) => (heard = resolve));
  };
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const webhook_url = `http://127.0.0.1:${server.address().port}/`;
    const job = await pd.generate("testcard", { prompt: "Löwe ❤️", webhook_url, metadata: { order: 66 } }, quick);
    await wait(1);
    const [{ body, headers: signed }] = came;
    const event = await pd.verifyWebhook(body, signed, secret);
    equal([event.type, event.data.jobId, event.data.input.prompt], ["job.completed", job.jobId, "Löwe ❤️"]);
    await fails(pd.verifyWebhook(body.replace("completed", "failed"), signed, secret), sdk.WebhookVerificationError);
    await fails(pd.verifyWebhook(body, signed, secret, { now: Date.now() / 1000 + 600 }), sdk.WebhookVerificationError);
    equal((await pd.replayWebhook(job.jobId)).jobId, job.jobId);
    await wait(2);
    equal([came[1].body, came[1].headers["webhook-id"]], [body, signed["webhook-id"]]);
    const { url, deliveries } = await pd.getWebhook(job.jobId);
    equal([url, deliveries[0].id], [webhook_url, signed["webhook-id"]]);
    equal((await pd.listJobs({ metadata: { order: 66 }, limit: 1 })).jobs[0].jobId, job.jobId);
  } finally {
    server.close();
    server.closeAllConnections?.();
  }
}
