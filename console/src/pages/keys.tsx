// API keys: who has one, making one, taking one away.

import { useRef, useState } from "preact/hooks";
import { path, query } from "../api";
import type { Api } from "../api";
import { useConsole, useLoaded } from "../context";
import type { Action } from "../context";
import { moment, plural } from "../format";
import { Act, ACTIONS, Close, Dialog, Empty, Field, filled, Table, Title, Trouble, useWork } from "../parts";
import { link } from "../route";
import type { DeclaredKeyAnswer, KeyAnswer, KeyList, KeyRole, NewKeyAnswer, TenantList } from "../types";

const DAY_S = 86_400;
const EXPIRIES: [string, number][] = [
  ["in an hour", 3600],
  ["tomorrow", DAY_S],
  ["in 30 days", 30 * DAY_S],
  ["in 90 days", 90 * DAY_S],
  ["in a year", 365 * DAY_S],
  ["never", 0],
];
const RIGHTS: Record<KeyRole, string> = {
  inference: "calls the tenant's models",
  adapters: "manages the tenant's adapters, reads its usage and keys",
  operator: "everything, for every tenant",
};

export function makeKey(api: Api, fields: { role: KeyRole; tenant: string | null; note: string; expires_s: number }): Promise<NewKeyAnswer> {
  const { role, tenant, note, expires_s } = fields;
  return api.act("POST", "/keys", { role, ...(tenant === null ? {} : { tenant }), note, ...(expires_s ? { expires_in_s: expires_s } : {}) });
}

export function KeysPage() {
  const { me } = useConsole();
  return (
    <>
      <Title text="Keys" />
      <Keys tenant={me.tenant} />
    </>
  );
}

/** The keys of a tenant; of everybody where none is named. */
export function Keys({ tenant }: { tenant: string | null }) {
  const { me } = useConsole();
  const where = `/keys${query({ tenant })}`;
  const { data, error, reload } = useLoaded((api, signal) => api.get<KeyList>(where, signal), 30_000, where);
  const [making, setMaking] = useState(false);
  const now_s = Date.now() / 1000;
  const valid = (data?.data ?? []).filter((key) => key.revoked_at === null && (key.expires_at === null || key.expires_at > now_s));
  const [past, setPast] = useState(false);
  const shown = past ? (data?.data ?? []) : valid;
  const hidden = (data?.data.length ?? 0) - valid.length;
  return (
    <>
      {error && <Trouble text={error} retry={reload} />}
      <div class="buttons left between">
        {me.role === "operator" && <button onClick={() => setMaking(true)}>New key</button>}
        {hidden > 0 && (
          <label class="check">
            <input type="checkbox" checked={past} onChange={(event) => setPast(event.currentTarget.checked)} /> {plural(hidden, "key")} revoked or expired
          </label>
        )}
      </div>
      {data && shown.length + data.declared.length === 0 && <Empty>There is none that opens anything.</Empty>}
      {data && shown.length + data.declared.length > 0 && <List made={shown} declared={data.declared} owners={tenant === null} reload={reload} />}
      {making && (
        <NewKey
          tenant={tenant}
          close={() => {
            setMaking(false);
            reload();
          }}
        />
      )}
    </>
  );
}

function List({ made, declared, owners, reload }: { made: KeyAnswer[]; declared: DeclaredKeyAnswer[]; owners: boolean; reload: () => void }) {
  return (
    <Table label="Keys" columns={["Begins with", owners && "Tenant", "Role", "Name", "Made", "Expires", ACTIONS]}>
      {made.map((key) => (
        <KeyRow key={key.id} one={key} owner={owners} reload={reload} />
      ))}
      {declared.map((key) => (
        <tr key={`${key.tenant}/${key.fingerprint}`}>
          <th scope="row">
            <span class="muted">sha256</span> <code>{key.fingerprint}…</code>
          </th>
          {owners && <Owner tenant={key.tenant} />}
          <td>{key.role}</td>
          <td class="long">declared in fleet.yaml</td>
          <td>–</td>
          <td>–</td>
          <td class="muted">changed there</td>
        </tr>
      ))}
    </Table>
  );
}

function Owner({ tenant }: { tenant: string | null }) {
  return <td>{tenant === null ? <span class="muted">operators</span> : <a href={link("tenants", tenant)}>{tenant}</a>}</td>;
}

function KeyRow({ one, owner, reload }: { one: KeyAnswer; owner: boolean; reload: () => void }) {
  const { api, me } = useConsole();
  const action: Action = {
    title: `Revoke the key ${one.prefix}…?`,
    text: `It opens nothing from now on, and that cannot be undone. Its role: ${one.role}.${one.note ? ` Its name: ${one.note}.` : ""}`,
    verb: "Revoke it",
    danger: true,
    run: () => api.act("DELETE", `/keys${path(one.id)}`).finally(reload),
    done: `The key ${one.prefix}… opens nothing any more.`,
  };
  return (
    <tr>
      <th scope="row">
        <code>{one.prefix}…</code>
      </th>
      {owner && <Owner tenant={one.tenant} />}
      <td>{one.role}</td>
      <td class="long">{one.note}</td>
      <td>{moment(one.created_at)}</td>
      <td>{one.expires_at === null ? "never" : moment(one.expires_at)}</td>
      <td>{one.revoked_at !== null ? <span class="muted">revoked {moment(one.revoked_at)}</span> : me.role === "operator" && <Act action={action}>Revoke</Act>}</td>
    </tr>
  );
}

function NewKey({ tenant, close }: { tenant: string | null; close: () => void }) {
  const { api } = useConsole();
  const [role, setRole] = useState<KeyRole>("inference");
  const [made, setMade] = useState<NewKeyAnswer | null>(null);
  const { busy, error, run } = useWork();
  const tenants = useLoaded((a, signal) => (tenant === null ? a.get<TenantList>("/tenants", signal) : Promise.resolve(null)), 0);
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const { owner, note, expires } = filled(event.currentTarget as HTMLFormElement);
    const whose = role === "operator" ? null : (tenant ?? owner ?? null);
    run(() => makeKey(api, { role, tenant: whose, note: note ?? "", expires_s: Number(expires) }), setMade);
  };
  if (made) return <Made made={made} close={close} />;
  const roles: KeyRole[] = tenant === null ? ["inference", "adapters", "operator"] : ["inference", "adapters"];
  return (
    <Dialog title={tenant === null ? "New key" : `New key of ${tenant}`} close={close}>
      <form class="form" onSubmit={submit}>
        <Field id="key-role" label="Role" note={RIGHTS[role]}>
          <select id="key-role" value={role} onChange={(event) => setRole(event.currentTarget.value as KeyRole)} aria-describedby="key-role-note">
            {roles.map((one) => (
              <option key={one} value={one}>
                {one}
              </option>
            ))}
          </select>
        </Field>
        {tenant === null && role !== "operator" && (
          <Field id="key-owner" label="Tenant">
            <select id="key-owner" name="owner" required>
              {tenants.data?.data.map((one) => (
                <option key={one.name}>{one.name}</option>
              ))}
            </select>
          </Field>
        )}
        <Field id="key-note" label="Name" note="What it is for; shown in lists.">
          <input id="key-note" name="note" maxLength={200} autocomplete="off" aria-describedby="key-note-note" />
        </Field>
        <Field id="key-expires" label="Expires">
          <select id="key-expires" name="expires">
            {EXPIRIES.map(([text, seconds]) => (
              <option key={text} value={seconds} selected={seconds === 90 * DAY_S}>
                {text}
              </option>
            ))}
          </select>
        </Field>
        {(error ?? tenants.error) && <Trouble text={error ?? tenants.error ?? ""} />}
        <div class="buttons">
          <Close>Cancel</Close>
          <button class="solid" disabled={busy}>
            {busy ? "Working…" : "Make it"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** A key that is shown this once. */
export function Made({ made, close }: { made: NewKeyAnswer; close: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const [said, setSaid] = useState("");
  const copy = async (): Promise<void> => {
    field.current?.select();
    try {
      await navigator.clipboard.writeText(made.key);
      setSaid("Copied.");
    } catch {
      setSaid(document.execCommand("copy") ? "Copied." : "Press Ctrl+C to copy it."); // without TLS there is no clipboard
    }
  };
  return (
    <Dialog title="The new key" text="It is shown this once and kept nowhere: copy it now." close={close}>
      <div class="row copy">
        <label class="hidden" for="made-key">
          Key
        </label>
        <input id="made-key" ref={field} class="code" readOnly value={made.key} onFocus={(event) => event.currentTarget.select()} autofocus />
        <button onClick={() => void copy()}>Copy</button>
      </div>
      <p class="note muted" role="status">
        {said}
      </p>
      <dl class="facts">
        <div>
          <dt>Role</dt>
          <dd>{made.role}</dd>
        </div>
        {made.tenant && (
          <div>
            <dt>Tenant</dt>
            <dd>{made.tenant}</dd>
          </div>
        )}
        <div>
          <dt>Expires</dt>
          <dd>{made.expires_at === null ? "never" : moment(made.expires_at)}</dd>
        </div>
      </dl>
      <div class="buttons">
        <Close>Done</Close>
      </div>
    </Dialog>
  );
}
