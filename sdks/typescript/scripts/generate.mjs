#!/usr/bin/env node
// Writes the input types of a service's models, out of its catalogue:
//
//     pixeldojo-types http://127.0.0.1:8787 --out pixeldojo-models.ts
//
// and then `new PixelDojoClient<ModelInputs>({ … })`. Without --out it prints them. --only and --except take ids,
// comma-separated. --python writes a Python module of typed dictionaries instead. In this repository,
// `npm run generate -- ADDRESS` writes src/models.generated.ts.
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";

const WIDTH = 110;

/** The text in lines that leave room for the indent. */
function wrapped(text, indent) {
  const lines = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line && indent + 3 + line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = "";
    }
    line += (line && " ") + word;
  }
  lines.push(line);
  return lines;
}

function comment(text, indent) {
  const pad = " ".repeat(indent);
  const lines = wrapped(text.replaceAll("*/", "*\\/"), indent);
  if (lines.length === 1) return `${pad}/** ${lines[0]} */\n`;
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

/** What is said of a parameter: its description, range and default. */
function about(parameter) {
  const said = [parameter.description ?? parameter.title];
  for (const [word, key] of [["From", "minimum"], ["Up to", "maximum"], ["By default", "default"]]) {
    if (parameter[key] !== undefined) said.push(`${word} ${literal(parameter[key])}.`);
  }
  if (parameter.minimum !== undefined && parameter.maximum !== undefined) {
    said.splice(1, 2, `From ${parameter.minimum} to ${parameter.maximum}.`);
  }
  return said.filter(Boolean).join(" ");
}

function object(schema, root, indent, depth) {
  const required = new Set(schema.required ?? []);
  let text = "{\n";
  for (const [name, each] of Object.entries(schema.properties)) {
    const told = about(each);
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

const pythonLiteral = (value) =>
  value === null ? "None" : typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);

function pythonUnion(types) {
  const distinct = [...new Set(types)];
  return distinct.includes("object") ? "object" : distinct.join(" | ") || "object";
}

/** The Python type of a JSON Schema. What it can't express is left to the service's own checks. */
function pythonType(schema, root, depth = 0) {
  if (typeof schema !== "object" || schema === null || depth > 12) return "object";
  if (typeof schema.$ref === "string") return pythonType(resolve(schema, root), root, depth + 1);
  const values = "const" in schema ? [schema.const] : schema.enum;
  if (Array.isArray(values)) {
    const able = values.every((each) => each === null || /^(string|boolean)$/.test(typeof each) || Number.isInteger(each));
    if (able && values.length) return `Literal[${values.map(pythonLiteral).join(", ")}]`;
    return values.length && values.every((each) => typeof each === "number") ? "float" : "object"; // no literals of floats
  }
  const choices = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(choices)) {
    const each = (choice) => pythonType({ ...schema, anyOf: undefined, oneOf: undefined, ...choice }, root, depth + 1);
    return pythonUnion(choices.map(each));
  }
  const kinds = Array.isArray(schema.type) ? schema.type : [schema.type ?? (schema.properties ? "object" : undefined)];
  return pythonUnion(kinds.map((kind) => pythonOne(kind, schema, root, depth)));
}

function pythonOne(kind, schema, root, depth) {
  const plain = { string: "str", boolean: "bool", null: "None", integer: "int", number: "float" };
  if (kind in plain) return plain[kind];
  if (kind === "array") return `list[${pythonType(schema.items ?? true, root, depth + 1)}]`;
  if (kind !== "object") return "object";
  const inner = schema.properties ? true : schema.additionalProperties;
  return `dict[str, ${typeof inner === "object" ? pythonType(inner, root, depth + 1) : "object"}]`;
}

const PYTHON_WORDS = new Set(
  ("False None True and as assert async await break class continue def del elif else except finally for from global if " +
    "import in is lambda nonlocal not or pass raise return try while with yield").split(" "),
);

function pythonDict(name, { apiId, name: title, description, requestSchema }) {
  const required = new Set(requestSchema.required ?? []);
  const fields = Object.entries(requestSchema.properties ?? {}).map(([field, each]) => {
    const kind = pythonType(each, requestSchema);
    return [field, required.has(field) ? kind : `NotRequired[${kind}]`, about(each)];
  });
  const what = `What \`${apiId}\` takes. ${title}: ${description}`.replaceAll("\\", "\\\\").replaceAll('"', "'");
  if (!fields.every(([field]) => /^[A-Za-z_]\w*$/.test(field) && !PYTHON_WORDS.has(field))) {
    const pairs = fields.map(([field, kind]) => `    ${pythonLiteral(field)}: ${kind},\n`).join("");
    return `${wrapped(what, 0).map((line) => `# ${line}\n`).join("")}${name} = TypedDict("${name}", {\n${pairs}})\n`;
  }
  let text = `class ${name}(TypedDict):\n    """${wrapped(what, 7).join("\n    ")}"""\n`;
  for (const [field, kind, said] of fields) {
    if (said) text += `\n${wrapped(said, 4).map((line) => `    #: ${line}\n`).join("")}`;
    text += `    ${field}: ${kind}\n`;
  }
  return text;
}

function renderPython(models) {
  const named = names(models.map((model) => model.apiId));
  const text = models.map((model) => `\n\n${pythonDict(named.get(model.apiId), model)}`).join("");
  const used = ["Literal", "NotRequired", "TypedDict"].filter((name) => new RegExp(`\\b${name}\\b`).test(text));
  const head = '"""What each model takes. Made from a PixelDojo catalogue by pixeldojo-types --python; make it again instead."""';
  return `# fmt: off\n${head}\n\n${used.length ? `from typing import ${used.join(", ")}\n` : ""}${text}`;
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
  options: {
    out: { type: "string" }, only: { type: "string" }, except: { type: "string" }, python: { type: "boolean" },
  },
});
if (positionals.length !== 1) {
  console.error("usage: pixeldojo-types ADDRESS [--out FILE] [--only ID,ID] [--except ID,ID] [--python]");
  process.exit(2);
}
try {
  const only = values.only?.split(",");
  const except = values.except?.split(",") ?? [];
  const models = (await catalogue(positionals[0]))
    .filter(({ apiId }) => (only?.includes(apiId) ?? true) && !except.includes(apiId))
    .sort((a, b) => (a.apiId < b.apiId ? -1 : 1));
  const text = values.python ? renderPython(models) : render(models);
  if (values.out === undefined) process.stdout.write(text);
  else writeFileSync(values.out, text);
} catch (error) {
  const cause = error?.cause?.message ? ` (${error.cause.message})` : "";
  console.error(`pixeldojo-types: ${error?.message ?? error}${cause}`);
  process.exit(1);
}
