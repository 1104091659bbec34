/** Server-sent events out of a stream of bytes, as the HTML standard reads them. */

export interface Message {
  event: string;
  data: string;
  id: string;
}

/** What the stream says about itself: the last id, and how long to wait before connecting again. */
export interface StreamState {
  id: string;
  retryMs: number | undefined;
}

const LONGEST = 16 * 2 ** 20;

/** The messages in `body`; `state` is kept up to date. Raises `RangeError` when a message is too long to be one. */
export async function* messages(
  body: ReadableStream<Uint8Array>,
  state: StreamState,
): AsyncGenerator<Message, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let halfOfCrLf = false;
  let event = "";
  let data: string[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // a message without its empty line is not whole
      rest += decoder.decode(value, { stream: true });
      if (halfOfCrLf && rest !== "") {
        if (rest.startsWith("\n")) rest = rest.slice(1);
        halfOfCrLf = false;
      }
      for (let end = rest.search(/[\r\n]/); end >= 0; end = rest.search(/[\r\n]/)) {
        const line = rest.slice(0, end);
        halfOfCrLf = rest[end] === "\r" && end === rest.length - 1;
        rest = rest.slice(end + (rest.startsWith("\r\n", end) ? 2 : 1));
        if (line === "") {
          if (data.length > 0) yield { event: event || "message", data: data.join("\n"), id: state.id };
          event = "";
          data = [];
          size = 0;
          continue;
        }
        size += line.length;
        const colon = line.indexOf(":");
        const name = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "event") event = text;
        else if (name === "data") data.push(text);
        else if (name === "id" && !text.includes("\0")) state.id = text;
        else if (name === "retry" && /^\d{1,8}$/.test(text)) state.retryMs = Number(text);
      }
      if (rest.length + size > LONGEST) throw new RangeError("a message is longer than 16 MiB");
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
