// Ask two models or versions the same thing, side by side, with a key that calls models.

import { useEffect, useRef, useState } from "preact/hooks";
import { headersOf, path, Refused, refusal, say } from "../api";
import { chat, NO_REPLY } from "../chat";
import type { Ask, Reply } from "../chat";
import { useConsole, useLoaded } from "../context";
import { count, moment, seconds } from "../format";
import { Field, filled, Title, Trouble, useWork } from "../parts";
import { makeKey } from "./keys";
import type { NewKeyAnswer, TenantList } from "../types";

interface Calling {
  key: string;
  made: NewKeyAnswer | null; // by this page, for this tab
}

const SIDES = ["Left", "Right"] as const;
const MADE_FOR_S = 3600;
let kept: Calling | null = null; // for as long as the tab has the page
let lastAsk: Ask = { model: "", system: "", prompt: "", temperature: null, max_tokens: 256 };

/** Whoever signs out leaves no key behind. */
export function forgetCalling(): void {
  kept = null;
}

export function Playground({ left, right }: { left: string; right: string }) {
  const [calling, setCalling] = useState(kept);
  const change = (next: Calling | null): void => setCalling((kept = next));
  return (
    <>
      <Title text="Playground" />
      {calling ? <Desk calling={calling} models={[left, right]} leave={() => change(null)} /> : <Key enter={change} />}
    </>
  );
}

// -- the key ------------------------------------------------------------------------------------------------

function Key({ enter }: { enter: (calling: Calling) => void }) {
  const { api, me } = useConsole();
  const pasted = useWork();
  const making = useWork();
  const isOperator = me.role === "operator";
  const tenants = useLoaded((a, signal) => (isOperator ? a.get<TenantList>("/tenants", signal) : Promise.resolve(null)), 0);
  const paste = (event: SubmitEvent): void => {
    event.preventDefault();
    const { calls: key = "" } = filled(event.currentTarget as HTMLFormElement);
    pasted.run(() => modelsOf(key), () => enter({ key, made: null }));
  };
  const make = (event: SubmitEvent): void => {
    event.preventDefault();
    const { tenant = "" } = filled(event.currentTarget as HTMLFormElement);
    making.run(() => makeKey(api, { role: "inference", tenant, note: "playground", expires_s: MADE_FOR_S }), (made) => enter({ key: made.key, made }));
  };
  return (
    <div class="pair">
      <form class="form card" onSubmit={paste}>
        <Field id="calls" label="Key of role inference" note={`${isOperator ? "An operator's key" : "Your key"} calls no models. This one stays in the memory of this page.`}>
          <input id="calls" name="calls" type="password" autocomplete="off" spellcheck={false} required aria-describedby="calls-note" />
        </Field>
        {pasted.error && <Trouble text={pasted.error} />}
        <div class="buttons left">
          <button class="solid" disabled={pasted.busy}>
            Use it
          </button>
        </div>
      </form>
      {isOperator && (
        <form class="form card" onSubmit={make}>
          <Field id="calls-for" label="Or make one for an hour" note="It is listed among the tenant's keys, and its requests count as the tenant's.">
            <select id="calls-for" name="tenant" required aria-describedby="calls-for-note">
              {tenants.data?.data.map((one) => (
                <option key={one.name}>{one.name}</option>
              ))}
            </select>
          </Field>
          {(making.error ?? tenants.error) && <Trouble text={making.error ?? tenants.error ?? ""} />}
          <div class="buttons left">
            <button disabled={making.busy}>Make a key for an hour</button>
          </div>
        </form>
      )}
    </div>
  );
}

/** The names of the models that a key calls. */
async function modelsOf(key: string): Promise<string[]> {
  const answer = await fetch("/v1/models", { headers: headersOf(key), cache: "no-store", credentials: "same-origin" });
  if (answer.status === 401) throw new Refused("This key calls no models: it is mistyped, expired, revoked, or of another role.", 401, "invalid_api_key");
  if (!answer.ok) throw refusal(answer.status, await answer.text());
  return ((await answer.json()) as { data: { id: string }[] }).data.map((model) => model.id);
}

// -- the desk -----------------------------------------------------------------------------------------------

function Desk({ calling, models, leave }: { calling: Calling; models: [string, string]; leave: () => void }) {
  const { api } = useConsole();
  const [names, setNames] = useState<string[]>([]);
  const [error, setError] = useState("");
  const [replies, setReplies] = useState<(Reply | null)[]>([null, null]);
  const running = useRef<AbortController | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    modelsOf(calling.key).then(setNames, (failure) => setError(say(failure)));
    return () => running.current?.abort();
  }, [calling.key]);
  const submit = async (event: SubmitEvent): Promise<void> => {
    event.preventDefault();
    const { system = "", prompt = "", temperature = "", max_tokens = "", ...sides } = filled(event.currentTarget as HTMLFormElement);
    lastAsk = { model: "", system, prompt, temperature: temperature === "" ? null : Number(temperature), max_tokens: Number(max_tokens) };
    const asked = SIDES.map((side) => sides[side] ?? "").map((model) => (model ? { ...lastAsk, model } : null));
    if (!asked[0] && !asked[1]) asked[0] = lastAsk; // the default model
    const cut = (running.current = new AbortController());
    setBusy(true);
    setReplies(asked.map((ask) => ask && NO_REPLY));
    const tell = (side: number) => (reply: Reply) => setReplies((before) => before.map((old, index) => (index === side ? reply : old)));
    await Promise.all(asked.map((ask, side) => ask && chat(calling.key, ask, tell(side), cut.signal)));
    setBusy(false);
  };
  const stop = (): void => running.current?.abort();
  const forget = (): void => {
    stop();
    if (calling.made) void api.act("DELETE", `/keys${path(calling.made.id)}`).catch(() => undefined);
    leave();
  };
  const keyed = (event: KeyboardEvent): void => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !busy) form.current?.requestSubmit();
    if (event.key === "Escape" && busy) stop();
  };
  return (
    <>
      <p class="note above muted">
        {calling.made ? `With a key of tenant ${calling.made.tenant}, made for this page, until ${moment(calling.made.expires_at)}.` : "With the key that you gave."}{" "}
        <button onClick={forget}>{calling.made ? "Revoke it" : "Forget it"}</button>
      </p>
      {error && <Trouble text={error} />}
      <form ref={form} class="form" onSubmit={(event) => void submit(event)} onKeyDown={keyed}>
        <datalist id="models">
          {names.map((name) => (
            <option key={name} value={name} />
          ))}
        </datalist>
        <Field id="system" label="System prompt">
          <textarea id="system" name="system" rows={2} defaultValue={lastAsk.system} />
        </Field>
        <Field id="prompt" label="Prompt" note="Ctrl+Enter runs it, Esc stops it.">
          <textarea id="prompt" name="prompt" rows={4} required defaultValue={lastAsk.prompt} aria-describedby="prompt-note" />
        </Field>
        <div class="row">
          <Field id="temperature" label="Temperature" note="Empty: the model's own.">
            <input id="temperature" name="temperature" type="number" min="0" max="2" step="any" defaultValue={lastAsk.temperature === null ? "" : String(lastAsk.temperature)} aria-describedby="temperature-note" />
          </Field>
          <Field id="max_tokens" label="Most tokens">
            <input id="max_tokens" name="max_tokens" type="number" min="1" max="1000000" step="1" required defaultValue={String(lastAsk.max_tokens)} />
          </Field>
          <div class="buttons left">
            <button class="solid" disabled={busy}>
              {busy ? "Running…" : "Run"}
            </button>
            <button type="button" disabled={!busy} onClick={stop}>
              Stop
            </button>
          </div>
        </div>
        <div class="pair">
          {SIDES.map((side, index) => (
            <section key={side} class="side" aria-label={`${side} answer`}>
              <Field id={`model-${side}`} label={`${side} model`}>
                <input id={`model-${side}`} name={side} list="models" autocomplete="off" spellcheck={false} placeholder={index ? "none" : "the default; name, or name@2"} defaultValue={models[index] ?? ""} />
              </Field>
              {replies[index] && <Answer reply={replies[index]} />}
            </section>
          ))}
        </div>
      </form>
    </>
  );
}

const STATES: Record<Reply["state"], string> = { waiting: "Waiting…", streaming: "Answering…", done: "Done", stopped: "Stopped", refused: "" };

function Answer({ reply }: { reply: Reply }) {
  const ended = { length: "the most tokens were reached", stop: "", null: "" }[reply.finish ?? "null"] ?? reply.finish;
  const ms = (value: number | null): string => seconds(value === null ? null : value / 1000);
  return (
    <>
      {reply.error ? <Trouble text={reply.error} /> : null}
      {(reply.text || !reply.error) && (
        <div class="answer" tabIndex={0} role="group" aria-label="Answer" aria-busy={reply.state === "waiting" || reply.state === "streaming"}>
          {reply.text}
        </div>
      )}
      <p class="note muted" role="status">
        {STATES[reply.state]}
        {ended ? `: ${ended}` : ""} {reply.answeredBy && <small>{reply.answeredBy}</small>}
      </p>
      <dl class="measures">
        <Measure name="Prompt tokens" value={reply.promptTokens === null ? "–" : count(reply.promptTokens)} />
        <Measure name="Completion tokens" value={reply.completionTokens === null ? "–" : count(reply.completionTokens)} />
        <Measure name="First token" value={ms(reply.firstTokenMs)} />
        <Measure name="Total" value={ms(reply.totalMs)} />
        <Measure name="In the queue" value={ms(reply.queueMs)} />
      </dl>
    </>
  );
}

function Measure({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}
