// A new adapter, or a new version of one: a file of this computer, or a source that the gateway fetches.

import { useEffect, useRef, useState } from "preact/hooks";
import { path, query } from "../api";
import { useConsole, useLoaded } from "../context";
import { bytes, percent } from "../format";
import { Close, Dialog, Field, filled, NAME, Trouble, useWork } from "../parts";
import { link } from "../route";
import type { AdapterSummary, TenantList, VersionAnswer } from "../types";

const TYPES: [RegExp, string][] = [
  [/\.tar$/i, "application/x-tar"],
  [/\.(tgz|tar\.gz)$/i, "application/gzip"],
  [/\.zip$/i, "application/zip"],
];

type Way = "upload" | "source";

/** `of` is the adapter that gets a version; without it an adapter is made. */
export function NewVersion({ of, close }: { of: AdapterSummary | null; close: () => void }) {
  const { api, me, told } = useConsole();
  const [way, setWay] = useState<Way>("upload");
  const [sent, setSent] = useState<{ done: number; total: number } | null>(null);
  const { busy, error, run } = useWork();
  const cut = useRef(new AbortController());
  useEffect(() => () => cut.current.abort(), []);
  const asksTenant = of === null && me.role === "operator";
  const tenants = useLoaded((a, signal) => (asksTenant ? a.get<TenantList>("/tenants", signal) : Promise.resolve(null)), 0);
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const fields = filled(form);
    const tenant = of?.tenant ?? fields["tenant"] ?? me.tenant;
    const name = of?.name ?? fields["name"] ?? "";
    const part = Number(fields["part"]) / 100;
    const file = (form.elements.namedItem("file") as HTMLInputElement | null)?.files?.[0];
    const work = (): Promise<VersionAnswer> => {
      const shared = { base_model: fields["base_model"], sha256: fields["sha256"] };
      if (!file) {
        const given = Object.fromEntries(Object.entries(shared).filter(([, value]) => value));
        const body = { source: fields["source"], ...given, ...(part ? { rollout: { weight: part } } : {}) };
        return of ? api.act("POST", `/adapters${path(name)}/versions${query({ tenant })}`, body) : api.act("POST", "/adapters", { ...body, name, ...(tenant ? { tenant } : {}) });
      }
      const type = TYPES.find(([pattern]) => pattern.test(file.name))?.[1] ?? "";
      cut.current = new AbortController();
      setSent({ done: 0, total: file.size });
      const where = `/adapters${path(name)}/versions${query({ tenant, ...shared, weight: part ? String(part) : "" })}`;
      return api.upload(where, file, type, (done) => setSent({ done, total: file.size }), cut.current.signal);
    };
    run(
      () => work().finally(() => setSent(null)),
      (version) => {
        told(`Version ${version.number} of ${name} is registered; it is checked and tried now.`);
        close();
        location.hash = link("adapters", version.tenant ?? "-", name);
      },
    );
  };
  return (
    <Dialog title={of ? `New version of ${of.name}` : "New adapter"} close={close}>
      <form class="form" onSubmit={submit}>
        {asksTenant && (
          <Field id="for-tenant" label="Tenant">
            <select id="for-tenant" name="tenant" required>
              {tenants.data?.data.map((one) => (
                <option key={one.name}>{one.name}</option>
              ))}
            </select>
          </Field>
        )}
        {of === null && (
          <Field id="name" label="Name" note="Small letters, digits, dots, hyphens, underscores; requests name the model so.">
            <input id="name" name="name" required maxLength={63} pattern={NAME} autocomplete="off" spellcheck={false} aria-describedby="name-note" />
          </Field>
        )}
        <fieldset class="row">
          <legend>Its files</legend>
          {(["upload", "source"] as const).map((one) => (
            <label key={one} class="check">
              <input type="radio" name="way" checked={way === one} onChange={() => setWay(one)} /> {one === "upload" ? "uploaded from here" : "fetched from a source"}
            </label>
          ))}
        </fieldset>
        {way === "upload" ? (
          <Field key="file" id="file" label="Archive" note="A tar, tar.gz or zip with adapter_config.json and adapter_model.safetensors.">
            <input id="file" name="file" type="file" accept=".tar,.tgz,.gz,.zip" required aria-describedby="file-note" onChange={(event) => event.currentTarget.setCustomValidity(unknownType(event.currentTarget))} />
          </Field>
        ) : (
          <Field key="source" id="source" label="Source" note="hf://org/name@revision, s3://, gs:// or https://, as the tenant may.">
            <input id="source" name="source" required maxLength={4096} autocomplete="off" spellcheck={false} aria-describedby="source-note" />
          </Field>
        )}
        <Field id="part" label="Part of the requests at first, in percent" note="Empty: it answers everything as soon as it is ready.">
          <input id="part" name="part" type="number" min="0.1" max="100" step="any" aria-describedby="part-note" />
        </Field>
        <details>
          <summary>More</summary>
          <Field id="base_model" label="Base model" note="Only where the tenant has several.">
            <input id="base_model" name="base_model" autocomplete="off" spellcheck={false} aria-describedby="base_model-note" />
          </Field>
          <Field id="sha256" label="sha256" note="Of the archive or of adapter_model.safetensors; a file with another is refused.">
            <input id="sha256" name="sha256" pattern="[0-9a-fA-F]{64}" autocomplete="off" spellcheck={false} aria-describedby="sha256-note" />
          </Field>
        </details>
        {(error ?? tenants.error) && <Trouble text={error ?? tenants.error ?? ""} />}
        {sent && (
          <p class="note" role="status">
            <progress max={sent.total} value={sent.done} aria-label="Upload" /> {sent.done < sent.total ? `${bytes(sent.done)} of ${bytes(sent.total)}, ${percent(sent.done / Math.max(1, sent.total))}` : "Sent; the gateway looks at it."}
          </p>
        )}
        <div class="buttons">
          {sent ? (
            <button type="button" onClick={() => cut.current.abort()}>
              Stop the upload
            </button>
          ) : (
            <Close>Cancel</Close>
          )}
          <button class="solid" disabled={busy}>
            {busy ? "Working…" : way === "upload" ? "Upload" : "Register"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function unknownType(input: HTMLInputElement): string {
  const name = input.files?.[0]?.name ?? "";
  return name && !TYPES.some(([pattern]) => pattern.test(name)) ? "Choose a .tar, .tar.gz, .tgz or .zip." : "";
}
