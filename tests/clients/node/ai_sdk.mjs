// Vercel's AI SDK with its provider for whatever speaks as OpenAI does.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, jsonSchema, streamText, tool } from "ai";
import { KEY, MODEL, URL, WEATHER, holds, refused, run } from "./checks.mjs";

const provider = createOpenAICompatible({
  name: "here", baseURL: `${URL}/v1`, apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true,
});
const small = { model: provider(MODEL), prompt: "Hello", maxOutputTokens: 8, maxRetries: 0 };
const whole = { ...small, maxOutputTokens: 64 };

await run({
  async generate_text() {
    const { text, usage } = await generateText(small);
    holds(text && usage.totalTokens);
  },
  async stream_text() {
    const result = streamText(small);
    let text = "";
    for await (const part of result.textStream) text += part;
    holds(text && (await result.usage).totalTokens);
  },
  async generate_an_object() {
    const { output } = await generateText({ ...whole, output: Output.object({ schema: jsonSchema(WEATHER) }) });
    holds(output.city);
  },
  async call_a_tool() {
    const tools = { weather: tool({ inputSchema: jsonSchema(WEATHER) }) };
    const { toolCalls } = await generateText({ ...whole, tools, toolChoice: { type: "tool", toolName: "weather" } });
    holds(toolCalls[0]?.toolName === "weather");
  },
  async complete() {
    holds((await generateText({ ...small, model: provider.completionModel(MODEL) })).text);
  },
  async unknown_model_is_404() {
    await refused(404, () => generateText({ ...small, model: provider("nobody") }));
  },
});
