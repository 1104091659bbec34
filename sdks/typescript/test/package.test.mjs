// The package itself: both builds, its metadata, and the generator of input types.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import * as esm from "../dist/esm/index.js";
import { send, serve } from "./server.mjs";

const HOME = new URL("../", import.meta.url);
const text = (path) => readFileSync(new URL(path, HOME), "utf8");
const meta = JSON.parse(text("package.json"));

test("both builds export the same", () => {
  const cjs = createRequire(import.meta.url)("../dist/cjs/index.js");
  assert.deepEqual(Object.keys(cjs).sort(), Object.keys(esm).sort());
});

test("there are no runtime dependencies", () => {
  for (const kind of ["dependencies", "peerDependencies", "optionalDependencies"]) assert.equal(meta[kind], undefined);
});

test("the version is one", () => {
  assert.equal(esm.VERSION, meta.version);
  assert.equal(JSON.parse(text("package-lock.json")).version, meta.version);
});

test("the lock file names no registry", () => {
  assert.ok(!/https?:|"resolved"/.test(text("package-lock.json")));
});

test("nothing is imported but the package's own files", () => {
  for (const build of ["esm", "cjs"]) {
    for (const name of readdirSync(new URL(`dist/${build}`, HOME)).filter((each) => each.endsWith("js"))) {
      const code = text(`dist/${build}/${name}`);
      for (const [, from] of code.matchAll(/(?:from |require\(|import\()"([^"]+)"/g)) {
        assert.match(from, /^\.\/[\w.]+\.js$/, `${build}/${name}`);
      }
    }
  }
});

test("input types of every kind of schema", async () => {
  const requestSchema = {
    required: ["prompt", "size"],
    $defs: { point: { type: "object", required: ["x"], properties: { x: { type: "number" }, "y-z": { type: "number" } } } },
    properties: {
      prompt: { type: "string", description: "Ends */ here." },
      size: { enum: ["1:1", 2, null] },
      mode: { const: "fast" },
      count: { type: "integer", minimum: 1, maximum: 4, default: 1, title: "How many." },
      tags: { type: "array", items: { type: ["string", "null"] } },
      at: { $ref: "#/$defs/point" },
      either: { anyOf: [{ type: "string" }, { type: "array", items: { type: "string" } }] },
      metadata: { type: "object", additionalProperties: { type: "string" } },
      anything: true,
      scale: { enum: [0.5, 2] },
      lost: { $ref: "#/$defs/nowhere" },
    },
  };
  const models = ["flux-1.1-pro", "flux-11-pro", "4k", "left-out"].map((apiId) => ({ apiId, name: "N", description: "D.", requestSchema }));
  const odd = { properties: { class: { type: "boolean" } } };
  models.push({ apiId: "odd", name: "Odd", description: 'Says "class".', requestSchema: odd });
  const server = await serve((_, response) => send({ json: { models } }, response));
  try {
    const script = fileURLToPath(new URL("scripts/generate.mjs", HOME));
    const { stdout } = await promisify(execFile)(process.execPath, [script, `${server.url}/api/v1/`, "--except", "left-out"]);
    for (const line of [
      "export interface Flux11ProInput {", "export interface Flux11Pro2Input {", "export interface Model4kInput {",
      '  "flux-11-pro": Flux11Pro2Input;', "  /** Ends *\\/ here. */", "  prompt: string;", '  size: "1:1" | 2 | null;',
      '  mode?: "fast";', "  /** How many. From 1 to 4. By default 1. */", "  count?: number;",
      "  tags?: Array<string | null>;", "  at?: {", "    x: number;", '    "y-z"?: number;',
      "  either?: string | string[];", "  metadata?: Record<string, string>;", "  anything?: unknown;", "  scale?: 0.5 | 2;", "  lost?: unknown;",
    ]) assert.ok(stdout.includes(`${line}\n`), `${line}\n${stdout}`);
    assert.ok(!stdout.includes("left-out"));
    const python = (await promisify(execFile)(process.execPath, [script, server.url, "--python"])).stdout;
    for (const line of [
      "from typing import Literal, NotRequired, TypedDict", "class Flux11ProInput(TypedDict):", "    #: Ends */ here.",
      "    prompt: str", '    size: Literal["1:1", 2, None]', '    mode: NotRequired[Literal["fast"]]',
      "    #: How many. From 1 to 4. By default 1.", "    count: NotRequired[int]", "    tags: NotRequired[list[str | None]]",
      "    at: NotRequired[dict[str, object]]", "    either: NotRequired[str | list[str]]",
      "    metadata: NotRequired[dict[str, str]]", "    anything: NotRequired[object]", "    lost: NotRequired[object]",
      "    scale: NotRequired[float]", 'OddInput = TypedDict("OddInput", {', '    "class": NotRequired[bool],',
    ]) assert.ok(python.includes(`${line}\n`), `${line}\n${python}`);
    assert.equal(server.requests[0].path, "/api/v1/models");
  } finally {
    await server.close();
  }
});
