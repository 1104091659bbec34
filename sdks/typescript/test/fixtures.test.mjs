// Every case of sdks/fixtures; its README says what they mean.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { describe, test } from "node:test";
import * as sdk from "../dist/esm/index.js";
import { send, serve } from "./server.mjs";

const FOLDER = new URL("../../fixtures/", import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(name, FOLDER), "utf8"));
const shared = read("shared.json");

function whole(told, table) {
  if (typeof told === "string") return whole({ like: told }, table);
  if (!told.like) return told;
  assert.ok(told.like in table, `shared.json has no ${told.like}`);
  const { like, ...more } = told;
  const base = table[like];
  const made = { ...base, ...more };
  for (const name of ["headers", "query", "json"]) {
    if (name in base && name in more) made[name] = { ...base[name], ...more[name] };
  }
  return made;
}

function filled(value, server) {
  const text = JSON.stringify(value).replaceAll("{{server}}", server);
  const at = (seconds) => new Date(Date.now() + seconds * 1000).toUTCString();
  return JSON.parse(text.replace(/\{\{date(?:\+(\d+))?\}\}/g, (_, seconds) => at(Number(seconds ?? 0))));
}

/** Fails unless all of `wanted` is in `seen`. */
function contains(seen, wanted, where = "result") {
  if (Array.isArray(wanted)) {
    assert.ok(Array.isArray(seen), `${where} is no list: ${JSON.stringify(seen)}`);
    assert.equal(seen.length, wanted.length, `${where}: ${JSON.stringify(seen)}`);
    wanted.forEach((each, number) => contains(seen[number], each, `${where}.${number}`));
  } else if (typeof wanted === "object" && wanted !== null) {
    assert.equal(typeof seen, "object", where);
    for (const name of Object.keys(wanted)) contains(seen?.[name], wanted[name], `${where}.${name}`);
  } else {
    assert.equal(seen ?? null, wanted, where);
  }
}

async function call(pd, { method, apiId, jobId, keyId, input, ...options }) {
  const polling = { pollIntervalMs: 1, maxPollIntervalMs: 1 };
  switch (method) {
    case "listModels":
    case "listJobs":
    case "listKeys":
    case "ledger":
    case "usage":
    case "createKey":
      return pd[method](options);
    case "rotateKey":
    case "revokeKey":
      return pd[method](keyId, options);
    case "account":
    case "webhookSecret":
    case "rotateWebhookSecret":
      return pd[method]();
    case "run":
    case "estimate":
      return pd[method](apiId, input, options);
    case "generate":
      return pd.generate(apiId, input, { ...polling, ...options });
    case "waitForJob":
      return pd.waitForJob(jobId, { ...polling, ...options });
    case "getModel":
    case "getModelSchema":
      return pd[method](apiId);
    case "events": {
      const seen = [];
      for await (const event of pd.events(jobId, options)) seen.push(event);
      return seen;
    }
    case "downloadAsset":
      return (await pd.downloadAsset(options.asset)).text();
    case "verifyWebhook": {
      const { payload, headers, secret, ...rest } = options;
      return pd.verifyWebhook(payload, headers, secret, rest);
    }
    default:
      return pd[method](jobId);
  }
}

function checkRequest(seen, wanted, { apiKey, same }) {
  const headers = { authorization: apiKey === null ? null : `Bearer ${apiKey}`, ...wanted.headers };
  assert.deepEqual(
    { method: seen.method, path: seen.path, query: seen.query, json: seen.body ? JSON.parse(seen.body) : undefined },
    { method: wanted.method, path: wanted.path, query: wanted.query ?? {}, json: wanted.json },
  );
  for (const [name, value] of Object.entries(headers)) checkSame(seen.headers[name], value, same, name);
}

function checkSame(seen, wanted, same, where) {
  if (!wanted?.same) return assert.equal(seen ?? null, wanted, where);
  assert.ok(seen, where);
  assert.equal(seen, (same[wanted.same] ??= seen), where);
}

async function play(raw) {
  let told;
  const faults = [];
  const same = {};
  const server = await serve(async (seen, response, number) => {
    try {
      const exchange = told.exchanges[number];
      assert.ok(exchange, `one request too many: ${seen.method} ${seen.path}`);
      checkRequest(seen, whole(exchange.request, filled(shared.requests, server.url)), { apiKey, same });
      await send(whole(exchange.response, filled(shared.responses, server.url)), response);
    } catch (fault) {
      faults.push(fault);
      response.socket?.destroy();
    }
  });
  told = filled(raw, server.url);
  const { apiKey = "pd_test", basePath = "", ...options } = told.client ?? {};
  const pd = new sdk.PixelDojoClient({
    apiKey: apiKey ?? "", baseUrl: server.url + basePath, maxRetries: 0, retryBaseMs: 1, ...options,
  });
  const progress = [];
  const { progress: watched, error, result, minMs = 0, maxMs = Infinity } = told.expect;
  const asked = watched ? { ...told.call, onProgress: ({ status }) => progress.at(-1) !== status && progress.push(status) } : told.call;
  const begun = performance.now();
  let outcome;
  try {
    outcome = { result: await call(pd, asked) };
  } catch (thrown) {
    outcome = { error: thrown };
  }
  const took = performance.now() - begun;
  await server.close();
  if (faults.length) throw faults[0];
  if (error) {
    const { type, idempotencyKey, messageHas = "", ...fields } = error;
    if (!outcome.error) assert.fail(`no ${type}, but ${JSON.stringify(outcome.result)}`);
    if (!(outcome.error instanceof sdk[type])) throw outcome.error;
    assert.equal(outcome.error.name, type);
    assert.ok(outcome.error instanceof sdk.PixelDojoError);
    contains(outcome.error, fields, "error");
    assert.ok(outcome.error.message.includes(messageHas), outcome.error.message);
    if (idempotencyKey) checkSame(outcome.error.idempotencyKey, idempotencyKey, same, "idempotencyKey");
  } else {
    if (outcome.error) throw outcome.error;
    contains(outcome.result, result);
  }
  assert.equal(server.requests.length, told.exchanges.length, "requests");
  if (watched) assert.deepEqual(progress, watched);
  assert.ok(took >= minMs && took <= maxMs, `took ${took} ms, not ${minMs} to ${maxMs}`);
}

for (const name of readdirSync(FOLDER).filter((each) => each.endsWith(".json") && each !== "shared.json").sort()) {
  describe(name, { concurrency: 8 }, () => {
    for (const each of read(name).cases) test(each.name, () => play(each));
  });
}
