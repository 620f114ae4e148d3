// Server-sent events over fetch, since EventSource can send no Authorization header. Comes again by itself.

import { open, Refused } from "./api";

export type Link = "connecting" | "live" | "lost";

export interface Handlers {
  event(name: string, data: unknown): void;
  link(state: Link): void;
  refused(error: Refused): void;
}

const SILENCE_MS = 6000; // a snapshot comes every second
const FIRST_RETRY_MS = 1000;
const LAST_RETRY_MS = 15000;

/** Follow the live stream until the returned function is called. */
export function follow(key: string, handlers: Handlers): () => void {
  const ended = new AbortController();
  void run(key, handlers, ended.signal);
  return () => ended.abort();
}

async function run(key: string, handlers: Handlers, ended: AbortSignal): Promise<void> {
  let pause = FIRST_RETRY_MS;
  while (!ended.aborted) {
    const cut = new AbortController();
    const stop = (): void => cut.abort();
    ended.addEventListener("abort", stop, { once: true });
    let clean = false;
    try {
      clean = await read(key, handlers, cut, () => (pause = FIRST_RETRY_MS));
    } catch (error) {
      if (ended.aborted) return;
      if (error instanceof Refused && error.isAboutCaller) return handlers.refused(error);
    } finally {
      ended.removeEventListener("abort", stop);
      cut.abort();
    }
    if (ended.aborted) return;
    if (clean) continue; // it ends now and then, to have the key looked at
    handlers.link("lost");
    await sleep(pause, ended);
    pause = Math.min(2 * pause, LAST_RETRY_MS);
  }
}

/** Read one stream to its end; true where that was announced. */
async function read(key: string, handlers: Handlers, cut: AbortController, began: () => void): Promise<boolean> {
  let silence = setTimeout(() => cut.abort(), SILENCE_MS);
  try {
    const answer = await open(key, "/live/stream", { signal: cut.signal });
    if (!answer.body) return false;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return false;
      clearTimeout(silence);
      silence = setTimeout(() => cut.abort(), SILENCE_MS);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop() ?? "";
      for (const [name, data] of blocks.map(parsed)) {
        if (name === "end") return true;
        if (data === undefined) continue;
        began();
        handlers.link("live");
        handlers.event(name, JSON.parse(data));
      }
    }
  } finally {
    clearTimeout(silence);
  }
}

function parsed(block: string): [string, string | undefined] {
  let name = "message";
  let data: string | undefined;
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data = (data === undefined ? "" : `${data}\n`) + line.slice(6);
  }
  return [name, data];
}

function sleep(ms: number, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    ended.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
