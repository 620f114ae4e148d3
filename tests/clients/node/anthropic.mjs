// Anthropic's own client for Node.js, keyed both ways.
import Anthropic from "@anthropic-ai/sdk";
import { HELLO, KEY, MODEL, URL, WEATHER, holds, refused, run } from "./checks.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0, timeout: 60_000 });
const bearer = new Anthropic({ baseURL: URL, apiKey: null, authToken: KEY, maxRetries: 0, timeout: 60_000 });
const small = { model: MODEL, max_tokens: 8, messages: HELLO };
const tools = [{ name: "weather", input_schema: WEATHER }];

await run({
  async message() {
    const answer = await client.messages.create(small);
    holds(answer.content[0].text && answer.model === MODEL && answer.usage.output_tokens);
  },
  async message_with_a_bearer_key() {
    holds((await bearer.messages.create(small)).content[0].text);
  },
  async message_stream() {
    holds((await client.messages.stream(small).finalMessage()).usage.output_tokens);
  },
  async message_with_a_tool() {
    const tool_choice = { type: "tool", name: "weather" };
    const answer = await client.messages.create({ ...small, max_tokens: 64, tools, tool_choice });
    holds(answer.content.at(-1).type === "tool_use", JSON.stringify(answer.content));
  },
  async beta_messages() {
    holds((await client.beta.messages.create({ ...small, betas: ["interleaved-thinking-2025-05-14"] })).content);
  },
  async count_tokens() {
    holds((await client.messages.countTokens({ model: MODEL, messages: HELLO })).input_tokens > 0);
  },
  async unknown_model_is_404() {
    await refused(404, () => client.messages.create({ ...small, model: "nobody" }));
  },
});
