// The settings of a tenant as a form: of one that is admitted, and of one that is changed.

import { useEffect } from "preact/hooks";
import { useConsole, useLoaded } from "../context";
import { ALIAS, Field } from "../parts";
import type { AdapterList } from "../types";
import { NO_BUDGET } from "./tenant_draft";
import type { Draft, ModelLine } from "./tenant_draft";

const CAPS: [string, string, boolean][] = [
  ["max_concurrency", "Sequences at once", true],
  ["max_concurrency_per_model", "Sequences at once of one model", false],
  ["max_queued", "Requests that wait", true],
  ["max_queued_tokens", "Prompt tokens of those", false],
  ["requests_per_minute", "Requests in any minute", false],
  ["tokens_per_minute", "Tokens in any minute", false],
  ["queue_timeout_s", "Longest wait, in seconds", true],
];
const BUDGETS: [string, string][] = [
  [NO_BUDGET, "none"],
  ["budget.monthly_tokens", "in tokens"],
  ["budget.monthly_cost", "in money"],
];

interface Form {
  draft: Draft;
  set: (draft: Draft) => void;
  wrong: string | null; // the field that the gateway refused
  blank: string | null; // what an empty field means; null: each has a value already
}

export function TenantForm({ form }: { form: Form }) {
  const { draft, wrong, blank } = form;
  useEffect(() => {
    if (wrong) document.getElementById(wrong)?.focus();
  }, [wrong]);
  const budget = draft.texts["budget"] ?? "";
  return (
    <>
      <ModelsPart form={form} />
      <fieldset class="fields">
        <legend>Share</legend>
        <Choice form={form} path="priority" label="Band" note="A higher one is served before a lower one." of={["high", "standard", "low"]} />
        <Amount form={form} path="weight" label="Weight" note="Its share within the band." step="any" needed />
      </fieldset>
      <fieldset class="fields">
        <legend>Caps</legend>
        {CAPS.map(([cap, label, needed]) => (
          <Amount key={cap} form={form} path={`caps.${cap}`} label={label} note={needed || blank ? cap : `${cap}; empty: no such cap`} step={cap.endsWith("_s") ? "any" : "1"} needed={needed} />
        ))}
      </fieldset>
      <fieldset class="fields">
        <legend>Budget of a month</legend>
        <Field id="budget" label="Kind">
          <select id="budget" value={budget} onChange={(event) => put(form, "budget", event.currentTarget.value)} aria-invalid={wrong === "budget"}>
            {blank && <option value="">{blank}</option>}
            {BUDGETS.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </Field>
        {budget.startsWith("budget.") && (
          <>
            <Amount key={budget} form={form} path={budget} label={budget.endsWith("cost") ? "Money" : "Tokens"} note="Beyond it, requests get a 429." step={budget.endsWith("cost") ? "any" : "1"} required />
            <Amount form={form} path="budget.soft" label="Warnings from, in percent" note="Empty: 80." max="100" step="any" />
          </>
        )}
      </fieldset>
      <fieldset class="fields">
        <legend>Place</legend>
        <Choice form={form} path="isolation" label="Isolation" note="dedicated: no replica serves it and another." of={["shared", "dedicated"]} />
        <Pools form={form} />
        <Field id="adapter_sources" label="Adapter sources" note="Where its own keys may fetch adapters from, a prefix on each line: s3://bucket, hf://org. Without any: uploads only.">
          <textarea id="adapter_sources" rows={2} value={draft.texts["adapter_sources"] ?? ""} onInput={(event) => put(form, "adapter_sources", event.currentTarget.value)} spellcheck={false} aria-describedby="adapter_sources-note" aria-invalid={wrong === "adapter_sources"} />
        </Field>
      </fieldset>
    </>
  );
}

function put({ draft, set }: Form, path: string, text: string): void {
  set({ ...draft, texts: { ...draft.texts, [path]: text } });
}

interface ValueProps {
  form: Form;
  path: string;
  label: string;
  note: string;
}

/** A number; one that is `needed` has a default, and cannot be taken away. */
function Amount({ form, path, label, note, needed, required = needed === true && form.blank === null, max, step }: ValueProps & { needed?: boolean } & { max?: string; step: string; required?: boolean }) {
  return (
    <Field id={path} label={label} note={note}>
      <input id={path} value={form.draft.texts[path] ?? ""} onInput={(event) => put(form, path, event.currentTarget.value)} placeholder={form.blank ?? (needed ? "" : "none")} required={required} type="number" min="0" max={max} step={step} autocomplete="off" aria-describedby={`${path}-note`} aria-invalid={form.wrong === path} />
    </Field>
  );
}

function Choice({ form, path, label, note, of }: ValueProps & { of: string[] }) {
  return (
    <Field id={path} label={label} note={note}>
      <select id={path} value={form.draft.texts[path] ?? ""} onChange={(event) => put(form, path, event.currentTarget.value)} aria-describedby={`${path}-note`} aria-invalid={form.wrong === path}>
        {form.blank && <option value="">{form.blank}</option>}
        {of.map((one) => (
          <option key={one}>{one}</option>
        ))}
      </select>
    </Field>
  );
}

function Pools({ form }: { form: Form }) {
  const { live } = useConsole();
  const chosen = (form.draft.texts["pools"] ?? "").split("\n").filter(Boolean);
  const names = [...new Set([...(live.snapshot?.pools.map((pool) => pool.name) ?? []), ...chosen])];
  const toggle = (name: string, on: boolean): void => put(form, "pools", names.filter((one) => (one === name ? on : chosen.includes(one))).join("\n"));
  return (
    <fieldset class="field" id="pools" tabIndex={-1} aria-invalid={form.wrong === "pools"}>
      <legend>Pools</legend>
      <div class="row">
        {names.map((name) => (
          <label key={name} class="check">
            <input type="checkbox" checked={chosen.includes(name)} onChange={(event) => toggle(name, event.currentTarget.checked)} /> {name}
          </label>
        ))}
      </div>
      <small class="muted">{form.blank ? `None: ${form.blank === "default" ? "the only shared one of each of its base models" : form.blank}.` : "Another pool moves it: what waits is told to come again, what runs ends where it is."}</small>
    </fieldset>
  );
}

// -- models ---------------------------------------------------------------------------------------------------

function ModelsPart({ form }: { form: Form }) {
  const { draft, set, blank } = form;
  const { live } = useConsole();
  const adapters = useLoaded((api, signal) => api.get<AdapterList>("/adapters?limit=1000", signal), 0);
  const bases = live.snapshot?.pools.flatMap((pool) => pool.replicas.map((replica) => replica.base_model)) ?? [];
  const known = [...new Set([...bases, ...(adapters.data?.data ?? []).filter((one) => one.tenant === null).map((one) => one.name)])].sort();
  const change = (index: number, news: Partial<ModelLine>): void => set({ ...draft, models: draft.models.map((line, at) => (at === index ? { ...line, ...news } : line)) });
  const names = draft.models.map((line) => line.alias.trim()).filter(Boolean);
  return (
    <fieldset class="models" id="models" tabIndex={-1}>
      <legend>Models</legend>
      <p class="muted note above">What requests call it, and the adapter or base model of the fleet that answers. A fallback, another of these names, answers while it cannot.</p>
      <datalist id="models-known">
        {known.map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
      {blank?.startsWith("as ") && draft.models.length === 0 && <p class="muted note above">Without any: its base models, {blank}.</p>}
      {draft.models.length > 0 && (
        <div class="model-line heads muted" aria-hidden="true">
          <span>Name</span> <span>Adapter or base model</span> <span>Fallback</span>
        </div>
      )}
      {draft.models.map((line, index) => (
        <ModelRow key={index} form={form} line={line} others={names.filter((name) => name !== line.alias.trim())} change={(news) => change(index, news)} remove={() => set({ ...draft, models: draft.models.filter((_, at) => at !== index) })} />
      ))}
      <div class="buttons left between">
        <button type="button" onClick={() => set({ ...draft, models: [...draft.models, { alias: "", model: "", fallback: "" }] })}>
          Add a model
        </button>
      </div>
      <div class="fields">
        <Field id="default_model" label="Default model" note="Answers where a request names none.">
          <select id="default_model" value={draft.texts["default_model"] ?? ""} onChange={(event) => put(form, "default_model", event.currentTarget.value)} aria-describedby="default_model-note" aria-invalid={form.wrong === "default_model"}>
            <option value="">{blank === "default" ? "the only one, where there is one" : (blank ?? "none: a request must name one")}</option>
            {[...new Set([...names, draft.texts["default_model"] ?? ""])].filter(Boolean).map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </Field>
      </div>
    </fieldset>
  );
}

function ModelRow({ form, line, others, change, remove }: { form: Form; line: ModelLine; others: string[]; change: (news: Partial<ModelLine>) => void; remove: () => void }) {
  const name = line.alias.trim() || "the new one";
  const wrong = form.wrong === `models.${line.alias.trim()}` || form.wrong?.startsWith(`models.${line.alias.trim()}.`) === true;
  return (
    <div class="model-line">
      <input value={line.alias} onInput={(event) => change({ alias: event.currentTarget.value })} aria-label="Name" placeholder="name" maxLength={128} pattern={ALIAS} required={line.model.trim() !== ""} autocomplete="off" spellcheck={false} />
      <input id={`models.${line.alias.trim()}`} value={line.model} onInput={(event) => change({ model: event.currentTarget.value })} aria-label={`Model of ${name}`} placeholder="adapter or base model" list="models-known" maxLength={63} required={line.alias.trim() !== ""} autocomplete="off" spellcheck={false} aria-invalid={wrong} />
      <select value={line.fallback} onChange={(event) => change({ fallback: event.currentTarget.value })} aria-label={`Fallback of ${name}`}>
        <option value="">no fallback</option>
        {[...new Set([...others, line.fallback])].filter(Boolean).map((one) => (
          <option key={one} value={one}>
            else {one}
          </option>
        ))}
      </select>
      <button type="button" onClick={remove} aria-label={`Remove ${name}`} title="Remove">
        ✕
      </button>
    </div>
  );
}
