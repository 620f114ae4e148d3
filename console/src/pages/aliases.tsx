// A tenant's own names for models, beside those that the fleet gives it.

import { useState } from "preact/hooks";
import { ofTenant, path } from "../api";
import { useConsole, useLoaded } from "../context";
import type { Action } from "../context";
import { moment } from "../format";
import { Act, ACTIONS, ALIAS, Close, Dialog, Empty, Field, filled, Table, Trouble, useWork } from "../parts";
import type { AliasAnswer, AliasList } from "../types";


const NEW = { alias: "", model: "" };

export function Aliases({ tenant }: { tenant: string }) {
  const { api, me } = useConsole();
  const of = ofTenant(me.role === "operator" ? tenant : null);
  const { data, error, reload } = useLoaded((a, signal) => a.get<AliasList>(`/aliases${of}`, signal), 30_000, of);
  const [setting, setSetting] = useState<{ alias: string; model: string } | null>(null);
  const remove = (one: AliasAnswer): Action => ({
    title: `Remove the alias ${one.alias}?`,
    text: `Requests for it get a 404 from now on; ${one.model} answers under its own name as before.`,
    verb: "Remove it",
    danger: true,
    run: () => api.act("DELETE", `/aliases${path(one.alias)}${of}`).finally(reload),
    done: `The alias ${one.alias} is removed.`,
  });
  return (
    <section aria-labelledby="aliases-title">
      <h2 id="aliases-title">
        Its own aliases <small>names for its adapters and models, which its own keys may set too</small>
      </h2>
      <div class="buttons left between">
        <button onClick={() => setSetting(NEW)}>New alias</button>
      </div>
      {error && <Trouble text={error} retry={reload} />}
      {data && data.data.length === 0 && <Empty>It has none of its own.</Empty>}
      {data && data.data.length > 0 && (
        <Table label="Aliases" columns={["Alias", "Stands for", "Since", "Set by", ACTIONS]}>
          {data.data.map((one) => (
            <tr key={one.alias}>
              <th scope="row">{one.alias}</th>
              <td>{one.model}</td>
              <td>{moment(one.changed_at)}</td>
              <td class="muted">{one.changed_by}</td>
              <td>
                <div class="acts">
                  <button onClick={() => setSetting(one)}>Change</button>
                  <Act action={remove(one)}>Remove</Act>
                </div>
              </td>
            </tr>
          ))}
        </Table>
      )}
      {setting && <SetAlias of={of} before={setting} close={() => (setSetting(null), reload())} />}
    </section>
  );
}

function SetAlias({ of, before, close }: { of: string; before: { alias: string; model: string }; close: () => void }) {
  const { api, told } = useConsole();
  const { busy, error, run } = useWork();
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const { alias = before.alias, model = "" } = filled(event.currentTarget as HTMLFormElement);
    run(() => api.act<AliasAnswer>("PUT", `/aliases${path(alias)}${of}`, { model }), (set) => (told(`${set.alias} stands for ${set.model} now.`), close()));
  };
  return (
    <Dialog title={before.alias ? `Change the alias ${before.alias}` : "New alias"} text="It counts from the next request on." close={close}>
      <form class="form" onSubmit={submit}>
        {!before.alias && (
          <Field id="alias" label="Alias" note="Any printable text, such as org/model-8B; requests name the model so.">
            <input id="alias" name="alias" required maxLength={128} pattern={ALIAS} autocomplete="off" spellcheck={false} aria-describedby="alias-note" />
          </Field>
        )}
        <Field id="alias-model" label="Stands for" note="An adapter of the tenant's own, or a model that the fleet gives it.">
          <input id="alias-model" name="model" required maxLength={128} defaultValue={before.model} autocomplete="off" spellcheck={false} aria-describedby="alias-model-note" />
        </Field>
        {error && <Trouble text={error} />}
        <div class="buttons">
          <Close>Cancel</Close>
          <button class="solid" disabled={busy}>
            {busy ? "Working…" : "Set it"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
