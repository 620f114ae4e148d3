// Admitting a tenant, and changing one with the effect beside it. What would change is shown and asked first.

import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { path } from "../api";
import { useConsole, useLoaded } from "../context";
import { Empty, Field, NAME, Title, Trouble, useWork } from "../parts";
import { link } from "../route";
import type { NewKeyAnswer, TenantChangedAnswer, TenantDetail, TenantList } from "../types";
import { Made } from "./keys";
import { bodyOf, draftOf, rebased, twice } from "./tenant_draft";
import type { Draft } from "./tenant_draft";
import { TenantForm } from "./tenant_form";
import { Effect, useUsage } from "./tenant_now";

const FEW = 4;
const DRY = "?dry_run=true";

export function AdmitTenant({ like }: { like: string }) {
  const { api, ask } = useConsole();
  const [name, setName] = useState("");
  const [model, setModel] = useState(like);
  const [key, setKey] = useState(true);
  const [draft, setDraft] = useState<Draft>({ texts: {}, models: like ? [] : [{ alias: "", model: "", fallback: "" }] });
  const [made, setMade] = useState<NewKeyAnswer | null>(null);
  const tenants = useLoaded((a, signal) => a.get<TenantList>("/tenants", signal), 0);
  const { busy, error, refused, run } = useWork();
  const show = (): void => void (location.hash = link("tenants", name));
  const body = { name, ...(model ? { like: model } : {}), key, ...bodyOf(draft, null) };
  const review = (event: Event): void => {
    event.preventDefault();
    run(
      () => api.act<TenantChangedAnswer>("POST", `/tenants${DRY}`, body),
      (would) =>
        ask({
          title: `Admit ${name}?`,
          text: `It counts from its next request on${key ? ", and its first key is shown once" : ", and has no key yet"}. It gets:`,
          list: would.words,
          verb: "Admit it",
          run: () => api.act<TenantChangedAnswer>("POST", "/tenants", body).then((done) => (done.key ? setMade(done.key) : show())),
          done: `${name} is admitted.`,
        }),
    );
  };
  const wrong = refused?.param ?? null;
  return (
    <>
      <Title text="Admit a tenant" />
      <form class="form card wide" onSubmit={review}>
        <div class="fields">
          <Field id="name" label="Name" note="Small letters, digits, dots, hyphens, underscores.">
            <input id="name" value={name} onInput={(event) => setName(event.currentTarget.value)} required maxLength={63} pattern={NAME} autocomplete="off" spellcheck={false} aria-describedby="name-note" aria-invalid={wrong === "name"} />
          </Field>
          <Field id="like" label="Like" note="Another tenant, whose settings it gets where nothing is said below: no key, adapter or usage of it.">
            <select id="like" value={model} onChange={(event) => setModel(event.currentTarget.value)} aria-describedby="like-note" aria-invalid={wrong === "like"}>
              <option value="">nobody</option>
              {[...new Set([model, ...(tenants.data?.data.map((one) => one.name) ?? [])])].filter(Boolean).map((one) => (
                <option key={one}>{one}</option>
              ))}
            </select>
          </Field>
        </div>
        <label class="check">
          <input type="checkbox" checked={key} onChange={(event) => setKey(event.currentTarget.checked)} /> Make its first key, which calls its models
        </label>
        <TenantForm form={{ draft, set: setDraft, wrong, blank: model ? `as ${model}` : "default" }} />
        <End error={error ?? tenants.error} draft={draft} busy={busy} verb="Check and admit" leave={link("tenants")} />
      </form>
      {made && <Made made={made} close={show} />}
    </>
  );
}

export function ChangeTenant({ name }: { name: string }) {
  const { data, error, status, reload } = useLoaded((api, signal) => api.get<TenantDetail>(`/tenants${path(name)}`, signal), 0, name);
  const gone = status === 404 || data?.state === "removed";
  return (
    <>
      <Title text={`Change ${name}`}>
        {!gone && <a href={link("tenants", name)}>Back to it</a>}
      </Title>
      {gone && (
        <Empty>
          There is no tenant {name}. <a href={link("tenants")}>All tenants</a>
        </Empty>
      )}
      {error && !gone && <Trouble text={error} retry={reload} />}
      {data && !gone && <Change tenant={data} />}
    </>
  );
}

interface Seen {
  tenant: TenantDetail; // as last seen: its revision goes with each change
  before: Draft;
  draft: Draft;
}

const seen = (tenant: TenantDetail): Seen => ({ tenant, before: draftOf(tenant.values), draft: draftOf(tenant.values) });

function Change({ tenant: first }: { tenant: TenantDetail }) {
  const { api, ask } = useConsole();
  const [{ tenant, before, draft }, setSeen] = useState(() => seen(first));
  const [same, setSame] = useState(false);
  const { busy, error, refused, run, forget } = useWork();
  const looking = useWork();
  const effect = useRef<HTMLElement>(null);
  const usage = useUsage(first.name);
  const where = `/tenants${path(first.name)}`;
  const review = (event: Event): void => {
    event.preventDefault();
    const body = { ...bodyOf(draft, before), revision: tenant.revision };
    run(
      () => api.act<TenantChangedAnswer>("PATCH", where + DRY, body),
      (would) => {
        setSame(would.words.length === 0);
        if (would.words.length === 0) return;
        ask({
          title: `Change ${first.name}?`,
          text: "It counts from its next request on; what runs ends under the rules with which it began.",
          list: would.words,
          verb: "Change it",
          run: () => api.act<TenantChangedAnswer>("PATCH", where, body).then((done) => (setSeen(seen(done.tenant)), effect.current?.scrollIntoView({ block: "nearest" }))),
          done: `${first.name} is changed: ${few(would.words)}.`,
        });
      },
    );
  };
  const lookAgain = (): void => looking.run(() => api.get<TenantDetail>(where), (now) => (forget(), setSeen({ ...seen(now), draft: rebased(draft, before, draftOf(now.values)) })));
  const take = (next: Draft): void => (setSame(false), setSeen({ tenant, before, draft: next }));
  return (
    <div class="beside">
      <form class="form card wide" onSubmit={review}>
        <TenantForm form={{ draft, set: take, wrong: refused?.param ?? null, blank: null }} />
        <End error={error ?? looking.error} draft={draft} busy={busy} verb="Check and change" leave={link("tenants", first.name)}>
          {refused?.code === "tenant_changed" && (
            <button type="button" disabled={looking.busy} onClick={lookAgain}>
              Take that over, and keep what I typed
            </button>
          )}
          {same && (
            <span class="muted" role="status">
              Nothing would change.
            </span>
          )}
        </End>
      </form>
      <aside aria-label="Its effect" ref={effect}>
        <Effect tenant={tenant} usage={usage} />
      </aside>
    </div>
  );
}

/** The first of many. */
function few(words: string[]): string {
  return words.slice(0, FEW).join("; ") + (words.length > FEW ? `; and ${words.length - FEW} more` : "");
}

interface EndProps {
  error: string | null;
  draft: Draft;
  busy: boolean;
  verb: string;
  leave: string; // where Cancel leads
  children?: ComponentChildren;
}

/** The end of the form, in view from each of its fields. */
function End({ error, draft, busy, verb, leave, children }: EndProps) {
  const doubled = twice(draft);
  return (
    <div class="form-end">
      {error && <Trouble text={error} />}
      {doubled && <Trouble text={`The name ${doubled} stands for two models.`} />}
      <div class="buttons left">
        <button class="solid" disabled={busy || doubled !== undefined}>
          {busy ? "Looking…" : verb}
        </button>
        <a class="button" href={leave}>
          Cancel
        </a>
        {children}
      </div>
    </div>
  );
}
