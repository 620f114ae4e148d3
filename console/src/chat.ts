// One streamed chat completion, with what its user waited for. No DOM in here.

import { headersOf, refusal, Refused } from "./api";

export interface Ask {
  model: string;
  system: string;
  prompt: string;
  temperature: number | null; // null: the model's own
  max_tokens: number;
}

export interface Reply {
  text: string;
  state: "waiting" | "streaming" | "done" | "stopped" | "refused";
  error: string;
  finish: string | null;
  promptTokens: number | null;
  completionTokens: number | null;
  firstTokenMs: number | null;
  totalMs: number | null;
  queueMs: number | null;
  answeredBy: string; // adapter, version, replica
}

export const NO_REPLY: Reply = {
  text: "",
  state: "waiting",
  error: "",
  finish: null,
  promptTokens: null,
  completionTokens: null,
  firstTokenMs: null,
  totalMs: null,
  queueMs: null,
  answeredBy: "",
};

interface Chunk {
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
  error?: { message?: string; code?: string | number | null };
}

/** Ask, and say what there is of the answer each time that more comes. Returns once it has ended, however it did. */
export async function chat(key: string, ask: Ask, told: (reply: Reply) => void, signal: AbortSignal): Promise<void> {
  const began = performance.now();
  let reply = NO_REPLY;
  const tell = (news: Partial<Reply>): void => told((reply = { ...reply, ...news }));
  const passed = (): number => performance.now() - began;
  try {
    const answer = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json", ...headersOf(key) },
      body: JSON.stringify(bodyOf(ask)),
      cache: "no-store",
      credentials: "same-origin",
      signal,
    });
    if (!answer.ok || !answer.body) throw refusal(answer.status, await answer.text());
    tell({ state: "streaming", queueMs: number(answer.headers.get("x-tenantry-queue-ms")), answeredBy: who(answer.headers) });
    for await (const chunk of chunks(answer.body)) {
      if (chunk.error) throw new Refused(chunk.error.message ?? "The engine met an error.", answer.status, String(chunk.error.code ?? ""));
      const choice = chunk.choices?.[0];
      const more = choice?.delta?.content || choice?.delta?.reasoning_content || "";
      tell({
        text: reply.text + more,
        firstTokenMs: more && reply.firstTokenMs === null ? passed() : reply.firstTokenMs,
        finish: choice?.finish_reason ?? reply.finish,
        ...(chunk.usage ? { promptTokens: chunk.usage.prompt_tokens, completionTokens: chunk.usage.completion_tokens } : {}),
      });
    }
    tell(reply.finish === null ? { state: "refused", error: "The answer broke off.", totalMs: passed() } : { state: "done", totalMs: passed() });
  } catch (error) {
    tell(signal.aborted ? { state: "stopped", totalMs: passed() } : { state: "refused", error: described(error), totalMs: passed() });
  }
}

function bodyOf(ask: Ask): unknown {
  const system = ask.system.trim() ? [{ role: "system", content: ask.system }] : [];
  return {
    ...(ask.model ? { model: ask.model } : {}),
    messages: [...system, { role: "user", content: ask.prompt }],
    max_tokens: ask.max_tokens,
    ...(ask.temperature === null ? {} : { temperature: ask.temperature }),
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** The events of a stream, up to its closing one. */
async function* chunks(body: ReadableStream<Uint8Array>): AsyncGenerator<Chunk> {
  const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const data = line.startsWith("data: ") ? line.slice(6).trim() : "";
        if (data === "[DONE]") return;
        if (data) yield JSON.parse(data) as Chunk;
      }
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

function described(error: unknown): string {
  if (!(error instanceof Refused)) return "The gateway does not answer.";
  return `${error.status}${error.code ? ` ${error.code}` : ""}: ${error.message}`;
}

function number(text: string | null): number | null {
  return text === null || !/^\d+$/.test(text) ? null : Number(text);
}

function who(headers: Headers): string {
  const adapter = headers.get("x-tenantry-adapter");
  const version = headers.get("x-tenantry-version");
  const replica = headers.get("x-tenantry-replica");
  return [adapter && `${adapter}${version ? `, version ${version}` : ""}`, replica && `on ${replica}`].filter(Boolean).join(" ");
}
