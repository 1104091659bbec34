#!/usr/bin/env node
// Writes the input types of a service's models, out of its catalogue:
//
//     pixeldojo-types http://127.0.0.1:8787 --out pixeldojo-models.ts
//
// and then `new PixelDojoClient<ModelInputs>({ … })`. Without --out it prints them. --only and --except take ids,
// comma-separated. In this repository, `npm run generate -- ADDRESS` writes src/models.generated.ts.
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

const WIDTH = 110;

function comment(text, indent) {
  const pad = " ".repeat(indent);
  const lines = [];
  let line = "";
  for (const word of text.replaceAll("*/", "*\\/").split(/\s+/)) {
    if (line && indent + 3 + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = "";
    }
    line += (line && " ") + word;
  }
  lines.push(line);
  if (lines.length === 1) return `${pad}/** ${line} */\n`;
  return `${pad}/**\n${lines.map((each) => `${pad} * ${each}\n`).join("")}${pad} */\n`;
}

const literal = (value) => JSON.stringify(value) ?? "unknown";
const field = (name) => (/^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name));

function union(types) {
  const distinct = [...new Set(types)];
  return distinct.includes("unknown") ? "unknown" : distinct.join(" | ") || "unknown";
}

function resolve(schema, root) {
  const path = schema.$ref.startsWith("#/") ? schema.$ref.slice(2).split("/") : [undefined];
  return path.reduce((found, name) => found?.[name?.replaceAll("~1", "/").replaceAll("~0", "~")], root) ?? true;
}

/** The TypeScript type of a JSON Schema. What it can't express is left to the service's own checks. */
function type(schema, root, indent, depth = 0) {
  if (typeof schema !== "object" || schema === null || depth > 12) return "unknown";
  if (typeof schema.$ref === "string") return type(resolve(schema, root), root, indent, depth + 1);
  if ("const" in schema) return literal(schema.const);
  if (Array.isArray(schema.enum)) return union(schema.enum.map(literal));
  const choices = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(choices) && !schema.properties) {
    return union(choices.map((each) => type({ ...schema, anyOf: undefined, oneOf: undefined, ...each }, root, indent, depth + 1)));
  }
  const kinds = Array.isArray(schema.type) ? schema.type : [schema.type ?? (schema.properties ? "object" : undefined)];
  return union(kinds.map((kind) => one(kind, schema, root, indent, depth)));
}

function one(kind, schema, root, indent, depth) {
  switch (kind) {
    case "string":
    case "boolean":
    case "null":
      return kind;
    case "integer":
    case "number":
      return "number";
    case "array": {
      const items = type(schema.items ?? true, root, indent, depth + 1);
      return /^[\w.]+$/.test(items) ? `${items}[]` : `Array<${items}>`;
    }
    case "object":
      return schema.properties ? object(schema, root, indent, depth) : record(schema, root, indent, depth);
    default:
      return "unknown";
  }
}

function record(schema, root, indent, depth) {
  const values = typeof schema.additionalProperties === "object" ? schema.additionalProperties : true;
  return `Record<string, ${type(values, root, indent, depth + 1)}>`;
}

function object(schema, root, indent, depth) {
  const required = new Set(schema.required ?? []);
  let text = "{\n";
  for (const [name, each] of Object.entries(schema.properties)) {
    const about = [each.description ?? each.title];
    for (const [word, key] of [["From", "minimum"], ["Up to", "maximum"], ["By default", "default"]]) {
      if (each[key] !== undefined) about.push(`${word} ${literal(each[key])}.`);
    }
    if (each.minimum !== undefined && each.maximum !== undefined) {
      about.splice(1, 2, `From ${each.minimum} to ${each.maximum}.`);
    }
    const told = about.filter(Boolean).join(" ");
    if (told) text += comment(told, indent + 2);
    const optional = required.has(name) ? "" : "?";
    text += `${" ".repeat(indent + 2)}${field(name)}${optional}: ${type(each, root, indent + 2, depth + 1)};\n`;
  }
  return `${text}${" ".repeat(indent)}}`;
}

/** Names of interfaces for ids: `flux-1.1-pro` → `Flux11ProInput`; a number tells twins apart. */
function names(ids) {
  const taken = new Map();
  for (const id of ids) {
    const words = id.split(/[^A-Za-z0-9]+/).filter(Boolean);
    const plain = words.map((word) => word[0].toUpperCase() + word.slice(1)).join("").replace(/^(\d)/, "Model$1");
    let name = `${plain}Input`;
    for (let twin = 2; [...taken.values()].includes(name); twin++) name = `${plain}${twin}Input`;
    taken.set(id, name);
  }
  return taken;
}

function render(models) {
  const named = names(models.map((model) => model.apiId));
  let text = "// Made from a PixelDojo catalogue by pixeldojo-types. Make it again instead of editing it.\n\n";
  for (const { apiId, name, description, requestSchema } of models) {
    text += comment(`What \`${apiId}\` takes. ${name}: ${description}`, 0);
    text += `export interface ${named.get(apiId)} ${object({ properties: {}, ...requestSchema }, requestSchema, 0, 0)}\n\n`;
  }
  text += "/** The input types by model id. */\nexport interface ModelInputs {\n";
  for (const [id, name] of named) text += `  ${field(id)}: ${name};\n`;
  return `${text}}\n`;
}

async function catalogue(address) {
  const root = address.replace(/\/+$/, "").replace(/\/api\/v1$/, "");
  const url = new URL(`${root}/api/v1/models?detailed=true`);
  const response = await fetch(url, { signal: AbortSignal.timeout(30_000) });
  const { models } = await response.json();
  if (!response.ok || !Array.isArray(models) || !models.every((each) => each?.apiId && each.requestSchema)) {
    throw new Error(`${url} did not answer with a catalogue (status ${response.status})`);
  }
  return models;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: "string" }, only: { type: "string" }, except: { type: "string" } },
});
if (positionals.length !== 1) {
  console.error("usage: pixeldojo-types ADDRESS [--out FILE] [--only ID,ID] [--except ID,ID]");
  process.exit(2);
}
try {
  const only = values.only?.split(",");
  const except = values.except?.split(",") ?? [];
  const models = (await catalogue(positionals[0]))
    .filter(({ apiId }) => (only?.includes(apiId) ?? true) && !except.includes(apiId))
    .sort((a, b) => (a.apiId < b.apiId ? -1 : 1));
  const text = render(models);
  if (values.out === undefined) process.stdout.write(text);
  else writeFileSync(values.out, text);
} catch (error) {
  const cause = error?.cause?.message ? ` (${error.cause.message})` : "";
  console.error(`pixeldojo-types: ${error?.message ?? error}${cause}`);
  process.exit(1);
}
