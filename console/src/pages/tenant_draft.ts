// What a form of a tenant's settings holds, as texts by the keys of fleet.yaml, and the body that it makes.
// No DOM in here.

import type { ValueAnswer } from "../types";

export interface ModelLine {
  alias: string;
  model: string;
  fallback: string; // empty: none
}

export interface Draft {
  texts: Record<string, string>; // by path; empty: no such value, or left out
  models: ModelLine[];
}

export const NO_BUDGET = "none";
const LISTS = ["pools", "adapter_sources"];
const NUMBERS = ["weight"]; // and all caps
const PLAIN = ["priority", "weight", "isolation", "default_model", ...LISTS];
const CAPS = "caps.";
const MODELS = "models.";
const SOFT = "budget.soft";

type Meaning = string | { model: string; fallback: string };

/** The settings of a tenant as texts. */
export function draftOf(values: ValueAnswer[]): Draft {
  const draft: Draft = { texts: { budget: NO_BUDGET }, models: [] };
  for (const { path, value } of values) {
    if (path.startsWith(MODELS)) {
      if (value !== null) draft.models.push({ alias: path.slice(MODELS.length), ...parts(value) });
    } else if (value !== null) {
      if (path === "budget.monthly_tokens" || path === "budget.monthly_cost") draft.texts["budget"] = path;
      draft.texts[path] = path === SOFT ? String(Math.round(1e4 * Number(value)) / 100) : Array.isArray(value) ? value.join("\n") : String(value);
    }
  }
  return draft;
}

/** What an alias stands for, as `models` has it. */
export function parts(value: unknown): { model: string; fallback: string } {
  return typeof value === "string" ? { model: value, fallback: "" } : (value as { model: string; fallback: string });
}

/** The body of a change from `before`; without that, of a new tenant. What is the same is not in it. */
export function bodyOf(draft: Draft, before: Draft | null): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  const differs = (path: string): boolean => textOf(draft, path) !== textOf(before, path);
  for (const path of PLAIN) if (differs(path)) body[path] = valueOf(path, textOf(draft, path));
  const caps = Object.keys(draft.texts).filter((path) => path.startsWith(CAPS) && differs(path));
  if (caps.length) body["caps"] = Object.fromEntries(caps.map((path) => [path.slice(CAPS.length), valueOf(path, textOf(draft, path))]));
  const kind = textOf(draft, "budget");
  if (kind === NO_BUDGET && differs("budget")) body["budget"] = null;
  else if (kind !== NO_BUDGET && kind && ["budget", kind, SOFT].some(differs)) {
    const soft = textOf(draft, SOFT);
    body["budget"] = { [kind.slice("budget.".length)]: Number(textOf(draft, kind)), ...(soft ? { soft: Number(soft) / 100 } : {}) };
  }
  const models = modelChanges(draft, before);
  if (Object.keys(models).length) body["models"] = models;
  return body;
}

/** What was typed on top of `before`, on top of what is there `now`. */
export function rebased(draft: Draft, before: Draft, now: Draft): Draft {
  const paths = new Set([...Object.keys(draft.texts), ...Object.keys(now.texts)]);
  const texts = [...paths].map((path) => [path, textOf(draft, path) === textOf(before, path) ? textOf(now, path) : textOf(draft, path)]);
  const changed = modelChanges(draft, before);
  const kept = now.models.filter((line) => !(line.alias in changed));
  const typed = draft.models.filter((line) => line.alias.trim() in changed);
  return { texts: Object.fromEntries(texts), models: [...kept, ...typed] };
}

/** A name that stands for two models. */
export function twice(draft: Draft): string | undefined {
  const names = draft.models.map((line) => line.alias.trim()).filter(Boolean);
  return names.find((name, index) => names.indexOf(name) !== index);
}

function textOf(draft: Draft | null, path: string): string {
  return (draft?.texts[path] ?? "").trim();
}

function valueOf(path: string, text: string): unknown {
  if (LISTS.includes(path)) return text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (!text) return null;
  return NUMBERS.includes(path) || path.startsWith(CAPS) ? Number(text) : text;
}

function modelChanges(draft: Draft, before: Draft | null): Record<string, Meaning | null> {
  const [now, was] = [meanings(draft), meanings(before)];
  const set = [...now].filter(([alias, meaning]) => JSON.stringify(meaning) !== JSON.stringify(was.get(alias)));
  const gone = [...was.keys()].filter((alias) => !now.has(alias)).map((alias): [string, null] => [alias, null]);
  return Object.fromEntries([...set, ...gone]);
}

function meanings(draft: Draft | null): Map<string, Meaning> {
  const lines = (draft?.models ?? []).map((line) => ({ alias: line.alias.trim(), model: line.model.trim(), fallback: line.fallback }));
  return new Map(lines.filter((line) => line.alias).map(({ alias, model, fallback }) => [alias, fallback ? { model, fallback } : model]));
}
