// A server on this machine that answers one request after the other as told, and remembers what it was asked.
import { once } from "node:events";
import { createServer } from "node:http";
import { setTimeout as pause } from "node:timers/promises";

/** `answer(request, response, number)` for each request; `requests` are those that came, bodies read. */
export async function serve(answer) {
  const requests = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const [path, query] = request.url.split("?");
    const seen = { method: request.method, path, query: Object.fromEntries(new URLSearchParams(query)) };
    requests.push({ ...seen, headers: request.headers, body: Buffer.concat(chunks).toString(), response });
    await answer(requests.at(-1), response, requests.length - 1);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    requests,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

/** Sends a response as the fixtures describe them. */
export async function send(told, response) {
  if (told.close === "before") return response.socket.destroy();
  if (told.hang === "before") return;
  const headers = { ...told.headers };
  if ("json" in told) headers["content-type"] ??= "application/json";
  if (Array.isArray(told.text)) {
    response.writeHead(told.status ?? 200, headers);
    response.flushHeaders();
    for (const part of told.text) {
      response.write(part);
      await pause(5);
    }
  } else {
    const text = "json" in told ? JSON.stringify(told.json) : (told.text ?? "");
    const body = told.bytes === undefined ? Buffer.from(text) : Buffer.from(told.bytes, "base64");
    response.writeHead(told.status ?? 200, { ...headers, "content-length": body.length });
    if (!told.close && !told.hang) return response.end(body);
    response.write(body.subarray(0, body.length / 2));
  }
  if (told.hang) return;
  if (!told.close) return response.end();
  await pause(20); // so that what was written is read before the connection is gone
  response.socket.destroy();
}
