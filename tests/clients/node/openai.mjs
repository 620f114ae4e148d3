// OpenAI's own client for Node.js.
import OpenAI from "openai";
import { HELLO, KEY, MODEL, URL, WEATHER, holds, refused, run } from "./checks.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0, timeout: 60_000 });
const small = { model: MODEL, messages: HELLO, max_tokens: 8 };

await run({
  async chat() {
    const answer = await client.chat.completions.create(small);
    holds(answer.choices[0].message.content && answer.model === MODEL && answer.usage.total_tokens);
  },
  async chat_stream() {
    let text = "";
    for await (const part of await client.chat.completions.create({ ...small, stream: true })) {
      text += part.choices[0]?.delta?.content ?? "";
    }
    holds(text);
  },
  async chat_stream_helper() {
    holds((await client.chat.completions.stream(small).finalChatCompletion()).choices.length);
  },
  async chat_with_a_schema() {
    const response_format = { type: "json_schema", json_schema: { name: "w", schema: WEATHER, strict: true } };
    const answer = await client.chat.completions.create({ ...small, max_tokens: 64, response_format });
    holds(answer.choices[0].message.content.includes('"city"'));
  },
  async completion() {
    holds((await client.completions.create({ model: MODEL, prompt: "Hello", max_tokens: 4 })).choices[0].text);
  },
  async response() {
    holds((await client.responses.create({ model: MODEL, input: "Hello", max_output_tokens: 8 })).output_text);
  },
  async response_stream() {
    const kinds = [];
    const asked = { model: MODEL, input: "Hello", max_output_tokens: 8, stream: true };
    for await (const event of await client.responses.create(asked)) kinds.push(event.type);
    holds(kinds[0] === "response.created" && /response\.(completed|incomplete)/.test(kinds.at(-1)), kinds.at(-1));
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    holds(ids.includes(MODEL));
  },
  async model_by_its_name() {
    holds((await client.models.retrieve(MODEL)).id === MODEL);
  },
  async unknown_model_is_404() {
    await refused(404, () => client.chat.completions.create({ ...small, model: "nobody" }));
  },
  async wrong_value_is_400() {
    await refused(400, () => client.chat.completions.create({ ...small, temperature: -1 }));
  },
});
