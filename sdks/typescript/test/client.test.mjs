// What no pair of request and response can say: signals, clocks, files, options.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { pathToFileURL } from "node:url";
import { inspect } from "node:util";
import * as sdk from "../dist/esm/index.js";
import { send, serve } from "./server.mjs";

const { PixelDojoClient } = sdk;
const JOB = { jobId: "job_1", status: "pending" };
const DONE = { jobId: "job_1", status: "completed", assets: [{ url: "https://example.com/0.png" }] };
const quick = { apiKey: "pd_test", maxRetries: 0, retryBaseMs: 1 };

/** Runs `work(pd, server)` against a server that says `answers` in turn, and then the last of them again. */
async function against(answers, work, options = {}) {
  const server = await serve((_, response, number) => send(answers[Math.min(number, answers.length - 1)], response));
  try {
    return await work(new PixelDojoClient({ baseUrl: server.url, ...quick, ...options }), server);
  } finally {
    await server.close();
  }
}

function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "pixeldojo-"));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

const isReason = (reason) => (error) => error === reason;

/** `work` once a request has come, and a little later. */
function onceAsked(server, work) {
  const look = setInterval(() => {
    if (server.requests.length === 0) return;
    clearInterval(look);
    setTimeout(work, 30);
  }, 2);
}

describe("signals", { concurrency: 4 }, () => {
  const reason = new Error("I changed my mind");

  test("aborted before the call", () =>
    against([{ json: JOB }], async (pd, server) => {
      await assert.rejects(pd.getJob("job_1", { signal: AbortSignal.abort(reason) }), isReason(reason));
      await assert.rejects(pd.generate("m", {}, { signal: AbortSignal.abort(reason) }), isReason(reason));
      assert.equal(server.requests.length, 0);
    }));

  for (const [what, answer] of [
    ["while the answer is waited for", { hang: "before" }],
    ["in the middle of the answer", { json: JOB, hang: "middle" }],
    ["between retries", { status: 429, headers: { "retry-after": "30" }, json: { error: { code: "rate_limit_exceeded", message: "" } } }],
  ]) {
    test(`aborted ${what}`, () =>
      against([answer], async (pd, server) => {
        const controller = new AbortController();
        onceAsked(server, () => controller.abort(reason));
        const call = pd.getJob("job_1", { signal: controller.signal, maxRetries: 5 });
        await assert.rejects(call, isReason(reason));
        assert.equal(server.requests.length, 1);
      }));
  }

  test("without a reason it is the platform's AbortError", () =>
    against([{ hang: "before" }], async (pd, server) => {
      const controller = new AbortController();
      onceAsked(server, () => controller.abort());
      await assert.rejects(pd.account({ signal: controller.signal }), { name: "AbortError" });
    }));

  test("aborted while a job is waited for, by polling and by events", () =>
    against([{ json: JOB }], async (pd, server) => {
      for (const follow of ["poll", "events"]) {
        const controller = new AbortController();
        server.requests.length = 0;
        onceAsked(server, () => controller.abort(reason));
        await assert.rejects(pd.waitForJob("job_1", { follow, signal: controller.signal }), isReason(reason));
      }
    }));

  test("aborted in the middle of events and of a download", () =>
    against([{ headers: { "content-type": "text/event-stream" }, text: ["data: 1\n\n"], hang: "middle" }], async (pd, server) => {
      const one = new AbortController();
      const seen = [];
      await assert.rejects(async () => {
        for await (const event of pd.events("job_1", { signal: one.signal })) {
          seen.push(event);
          onceAsked(server, () => one.abort(reason));
        }
      }, isReason(reason));
      assert.equal(seen.length, 1);
      const two = new AbortController();
      const response = await pd.downloadAsset(`${server.url}/0.png`, { signal: two.signal });
      onceAsked(server, () => two.abort(reason));
      await assert.rejects(response.text(), isReason(reason));
    }));

  test("leaves no listener behind", () =>
    against([{ json: JOB }], async (pd) => {
      const { signal } = new AbortController();
      let listeners = 0;
      for (const [name, step] of [["addEventListener", 1], ["removeEventListener", -1]]) {
        const real = signal[name].bind(signal);
        signal[name] = (...rest) => {
          listeners += step;
          real(...rest);
        };
      }
      for (let i = 0; i < 3; i++) await pd.getJob("job_1", { signal });
      assert.equal(listeners, 0);
    }));

  test("whoever stops reading events closes the connection", () =>
    against([{ headers: { "content-type": "text/event-stream" }, text: ["data: 1\n\n"], hang: "middle" }], async (pd, server) => {
      for await (const _ of pd.events("job_1")) break;
      const { response } = server.requests[0];
      if (!response.closed) await new Promise((resolve) => response.once("close", resolve));
    }));
});

describe("limits in time", { concurrency: 4 }, () => {
  const deaf = () => new Promise(() => {}); // a fetch that heeds no signal

  test("a fetch that heeds no signal", async () => {
    const pd = new PixelDojoClient({ ...quick, baseUrl: "http://127.0.0.1:9", fetch: deaf, timeoutMs: 30 });
    await assert.rejects(pd.getJob("job_1"), { name: "TimeoutError", code: "timeout" });
    const wait = pd.generate("m", {}, { timeoutMs: 60, idempotencyKey: "k" });
    await assert.rejects(wait, { name: "TimeoutError", idempotencyKey: "k", jobId: undefined });
  });

  test("a body that heeds no signal", async () => {
    const fetch = async () => ({ ok: true, status: 200, headers: new Headers(), text: deaf });
    const pd = new PixelDojoClient({ ...quick, baseUrl: "http://127.0.0.1:9", fetch, timeoutMs: 30 });
    await assert.rejects(pd.getJob("job_1"), { name: "TimeoutError" });
  });

  test("a job that never ends, with a clock that jumps", (t) =>
    against([{ status: 202, json: JOB }, { json: JOB }], async (pd) => {
      const real = Date.now;
      t.after(() => (Date.now = real));
      let jump = 0;
      Date.now = () => real() + (jump += 3_600_000);
      const begun = performance.now();
      await assert.rejects(pd.generate("m", {}, { timeoutMs: 1_500, pollIntervalMs: 20 }), { name: "TimeoutError", jobId: "job_1" });
      const took = performance.now() - begun;
      assert.ok(took > 1_400 && took < 8_000, String(took));
    }));

  test("no limit at all", () =>
    against([{ status: 202, json: JOB }, { json: DONE }], async (pd) => {
      const job = await pd.generate("m", {}, { timeoutMs: Infinity, pollIntervalMs: 1 });
      assert.equal(job.status, "completed");
    }));

  test("a stream that falls silent is connected again", () => {
    const headers = { "content-type": "text/event-stream" };
    const [first, last] = ["id: 1\nevent: status\ndata: {}\n\n", "event: completed\ndata: {}\n\n"];
    return against([{ headers, text: [first], hang: "middle" }, { headers, text: [last] }], async (pd, server) => {
      const seen = [];
      for await (const { type } of pd.events("job_1", { timeoutMs: 1_500 })) seen.push(type);
      assert.deepEqual(seen, ["status", "completed"]);
      assert.equal(server.requests[1].headers["last-event-id"], "1");
    });
  });

  test("polls come at growing intervals", () =>
    against([{ status: 202, json: JOB }, { json: JOB }, { json: JOB }, { json: JOB }, { json: DONE }], async (pd, server) => {
      const times = [];
      const told = await pd.generate("m", {}, {
        pollIntervalMs: 40, maxPollIntervalMs: 80,
        onProgress: () => times.push(performance.now()),
      });
      assert.equal(told.status, "completed");
      assert.equal(server.requests.length, 5);
      assert.equal(times.length, 2); // pending and completed: the same is not told twice
      const took = times[1] - times[0];
      assert.ok(took >= 40 + 60 + 80 + 80 - 10, String(took));
    }));
});

describe("waits", () => {
  test("an error in onProgress ends the wait and is passed on", () =>
    against([{ json: JOB }], async (pd) => {
      const mine = new Error("mine");
      for (const follow of ["poll", "events"]) {
        const onProgress = () => {
          throw mine;
        };
        await assert.rejects(pd.waitForJob("job_1", { follow, onProgress }), isReason(mine));
      }
    }));

  test("a rate limit while waiting is waited for, however often", () => {
    const busy = { status: 429, headers: { "retry-after": "0" }, json: { error: { code: "rate_limit_exceeded", message: "" } } };
    return against([busy, busy, busy, { json: DONE }], async (pd) => {
      await pd.waitForJob("job_1", { pollIntervalMs: 1, outageMs: 0 });
    });
  });

  test("a submit that was replayed is asked for at once", () =>
    against([{ status: 202, json: { ...JOB, status: "completed" } }, { json: DONE }], async (pd) => {
      const begun = performance.now();
      await pd.generate("m", {}, { idempotencyKey: "k", pollIntervalMs: 5_000 });
      assert.ok(performance.now() - begun < 4_000);
    }));

  test("each logical run has an idempotency key of its own", () =>
    against([{ status: 202, json: JOB }], async (pd, server) => {
      await Promise.all([pd.run("m", {}), pd.run("m", {}), pd.run("m", {})]);
      const keys = server.requests.map(({ headers }) => headers["idempotency-key"]);
      assert.equal(new Set(keys).size, 3);
      for (const key of keys) assert.match(key, /^ts_[0-9a-f]{32}$/);
    }));
});

describe("downloads", () => {
  const picture = "x".repeat(100_000);

  test("a file, whole, in a folder that is made", async (t) => {
    const path = join(folder(t), "a/b/0.png");
    await against([{ text: picture }], async (pd, server) => {
      assert.equal(await pd.saveAsset({ url: `${server.url}/0.png` }, path), 100_000);
      assert.equal(readFileSync(path, "utf8"), picture);
      assert.equal(await pd.saveAsset(`${server.url}/0.png`, pathToFileURL(path)), 100_000);
    });
    assert.deepEqual(readdirSync(join(path, "..")), ["0.png"]);
  });

  test("a download that breaks off is begun again", async (t) => {
    const path = join(folder(t), "0.png");
    await against([{ text: picture, close: "middle" }, { text: picture }], async (pd, server) => {
      await pd.saveAsset(`${server.url}/0.png`, path, { maxRetries: 2 });
      assert.equal(server.requests.length, 2);
    });
    assert.equal(readFileSync(path, "utf8"), picture);
  });

  test("a download that can't be finished leaves what was there, and nothing else", async (t) => {
    const home = folder(t);
    writeFileSync(join(home, "0.png"), "old");
    for (const [answer, name] of [[{ text: picture, close: "middle" }, "ConnectionError"], [{ text: picture, hang: "middle" }, "TimeoutError"]]) {
      await against([answer], (pd, server) =>
        assert.rejects(pd.saveAsset(`${server.url}/0.png`, join(home, "0.png"), { timeoutMs: 1_000 }), { name }));
    }
    assert.deepEqual(readdirSync(home), ["0.png"]);
    assert.equal(readFileSync(join(home, "0.png"), "utf8"), "old");
  });

  test("a path that can't be written", async (t) => {
    const home = folder(t);
    writeFileSync(join(home, "file"), "");
    await against([{ text: picture }], (pd, server) =>
      assert.rejects(pd.saveAsset(`${server.url}/0.png`, join(home, "file/0.png"))));
  });

  test("nothing but the web is downloaded", async () => {
    const pd = new PixelDojoClient(quick);
    for (const url of ["file:///etc/hostname", "data:text/plain,hello"]) {
      await assert.rejects(pd.downloadAsset(url), TypeError);
    }
  });

  test("a stream can be read piece by piece, and left", () =>
    against([{ text: picture }], async (pd, server) => {
      const response = await pd.downloadAsset(`${server.url}/0.png`);
      assert.ok(response.body instanceof ReadableStream);
      let bytes = 0;
      for await (const chunk of response.body) bytes += chunk.length;
      assert.equal(bytes, 100_000);
      await (await pd.downloadAsset(`${server.url}/0.png`)).body.cancel();
    }));
});

describe("options", () => {
  test("base URLs", () => {
    for (const [given, made] of [
      ["http://h:1", "http://h:1/api/v1"],
      ["http://h:1/", "http://h:1/api/v1"],
      ["http://h:1/api/v1", "http://h:1/api/v1"],
      ["  http://h:1/api/v1/ ", "http://h:1/api/v1"],
      ["https://h/x", "https://h/x/api/v1"],
      ["http://[::1]:8787", "http://[::1]:8787/api/v1"],
    ]) assert.equal(new PixelDojoClient({ baseUrl: given }).baseUrl, made);
  });

  test("the environment is the default", (t) => {
    t.after(() => ["PIXELDOJO_BASE_URL", "PIXELDOJO_API_KEY"].forEach((name) => delete process.env[name]));
    delete process.env.PIXELDOJO_BASE_URL;
    assert.equal(new PixelDojoClient().baseUrl, "https://pixeldojo.ai/api/v1");
    process.env.PIXELDOJO_BASE_URL = "http://h:1";
    assert.equal(new PixelDojoClient().baseUrl, "http://h:1/api/v1");
    assert.equal(new PixelDojoClient({ baseUrl: "http://h:2" }).baseUrl, "http://h:2/api/v1");
    process.env.PIXELDOJO_API_KEY = "pd_environment\n";
    return against([{ json: JOB }], async (_, server) => {
      await new PixelDojoClient({ baseUrl: server.url }).getJob("job_1");
      assert.equal(server.requests[0].headers.authorization, "Bearer pd_environment");
    });
  });

  test("what can't be right is refused at once", () => {
    for (const options of [
      { baseUrl: "localhost:8787" }, { baseUrl: "ftp://h" }, { baseUrl: "http://user:word@h" }, { baseUrl: "here" },
      { apiKey: "pd_a\nb" }, { apiKey: "pd_ü" }, { fetch: 7 },
    ]) assert.throws(() => new PixelDojoClient(options), TypeError, JSON.stringify(options));
  });

  test("ids that would lead elsewhere are refused", async () => {
    const pd = new PixelDojoClient(quick);
    for (const id of ["", ".", "..", undefined, 7]) {
      await assert.rejects(pd.getJob(id), TypeError);
      await assert.rejects(pd.run(id, {}), TypeError);
      await assert.rejects(pd.waitForJob(id), TypeError);
    }
  });

  test("input that is no JSON is the caller's TypeError, and not tried again", async () => {
    const pd = new PixelDojoClient({ ...quick, baseUrl: "http://127.0.0.1:9", maxRetries: 5 });
    await assert.rejects(pd.run("m", { seed: 7n }), TypeError);
  });

  test("headers: more of them, and our own name", () =>
    against([{ json: JOB }], async (pd, server) => {
      await pd.getJob("job_1", { headers: { "x-two": "2" } });
      const { headers } = server.requests[0];
      assert.equal(headers["x-one"], "1");
      assert.equal(headers["x-two"], "2");
      assert.equal(headers["user-agent"], `pixeldojo-typescript/${sdk.VERSION}`);
    }, { headers: { "x-one": "1" } }));

  test("the key is not shown", () => {
    const pd = new PixelDojoClient({ apiKey: "pd_secret" });
    assert.ok(!inspect(pd, { depth: 9, showHidden: true }).includes("pd_secret"));
    assert.ok(!JSON.stringify(pd).includes("pd_secret"));
  });

  test("neither the key nor a signature is in an error", async () => {
    const pd = new PixelDojoClient({ ...quick, apiKey: "pd_secret", baseUrl: "http://127.0.0.1:9" });
    for (const call of [pd.getJob("job_1"), pd.downloadAsset("http://127.0.0.1:9/0.png?signature=pd_secret")]) {
      await assert.rejects(call, (error) => error instanceof sdk.ConnectionError && !inspect(error).includes("pd_secret"));
    }
  });

  test("a host that doesn't listen is a ConnectionError that says where", async () => {
    const pd = new PixelDojoClient({ ...quick, baseUrl: "http://127.0.0.1:9" });
    await assert.rejects(pd.listModels(), /can't reach http:\/\/127\.0\.0\.1:9\/api\/v1\/models/);
  });

  test("an invalid webhook secret is the caller's TypeError", async () => {
    const headers = { "webhook-id": "a", "webhook-timestamp": String(Math.floor(Date.now() / 1000)), "webhook-signature": "v1,YQ==" };
    for (const secret of ["", "whsec_", "whsec_%%%"]) await assert.rejects(sdk.verifyWebhook("{}", headers, secret), TypeError);
    const bytes = new TextEncoder().encode("{}");
    for (const payload of [bytes, bytes.buffer]) {
      await assert.rejects(sdk.verifyWebhook(payload, new Headers(headers), "whsec_YQ=="), sdk.WebhookVerificationError);
    }
  });
});
