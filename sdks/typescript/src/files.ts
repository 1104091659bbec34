/** Saving to a file: the one thing here that needs a file system, and so Node.js, Deno or Bun. */

import { randomHex, nodeModule } from "./crypto.js";

interface FileHandle {
  write(data: Uint8Array): Promise<{ bytesWritten: number }>;
  close(): Promise<void>;
}

interface Files {
  mkdir(path: string, options: { recursive: boolean }): Promise<unknown>;
  open(path: string, flags: string): Promise<FileHandle>;
  rename(from: string, to: string): Promise<void>;
  rm(path: string, options: { force: boolean }): Promise<void>;
}

/** Writes `body` to `path`, whole or not at all; how many bytes there were. */
export async function save(body: ReadableStream<Uint8Array>, path: string | URL): Promise<number> {
  const files = (await nodeModule<{ promises: Files }>("node:fs")).promises;
  const { dirname } = await nodeModule<{ dirname(path: string): string }>("node:path");
  const target =
    typeof path === "string" ? path : (await nodeModule<{ fileURLToPath(url: URL): string }>("node:url")).fileURLToPath(path);
  const part = `${target}.${(await randomHex()).slice(0, 8)}.part`;
  const reader = body.getReader();
  let bytes = 0;
  try {
    await files.mkdir(dirname(target), { recursive: true });
    const file = await files.open(part, "wx");
    try {
      for (let next = await reader.read(); !next.done; next = await reader.read()) {
        for (let written = 0; written < next.value.length; ) {
          const rest = written ? next.value.subarray(written) : next.value;
          written += (await file.write(rest)).bytesWritten;
        }
        bytes += next.value.length;
      }
    } finally {
      await file.close();
    }
    await files.rename(part, target);
  } finally {
    await reader.cancel().catch(() => {});
    await files.rm(part, { force: true });
  }
  return bytes;
}
