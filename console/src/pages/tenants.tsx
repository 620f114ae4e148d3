// Every tenant: its state, its place, what it has now.

import { useState } from "preact/hooks";
import { useConsole, useLoaded } from "../context";
import { count, plural } from "../format";
import { Empty, number, State, Table, Title, Trouble } from "../parts";
import { link } from "../route";
import type { TenantAnswer, TenantList } from "../types";
import { useWorkOf } from "./tenant_now";

const SHOWN = 200;
const stateOf = (tenant: TenantAnswer): string => (tenant.suspended ? "suspended" : "active");

export function Tenants() {
  const { live } = useConsole();
  const { data, error, reload } = useLoaded((api, signal) => api.get<TenantList>("/tenants", signal), 30_000);
  const [text, setText] = useState("");
  const workOf = useWorkOf();
  const wanted = text.trim().toLowerCase();
  const found = data?.data.filter((one) => `${one.name} ${stateOf(one)} ${one.band} ${one.isolation}`.includes(wanted)) ?? [];
  const cap = (value: number | null): string => (value === null ? "none" : count(value));
  return (
    <>
      <Title text="Tenants">{data && <span class="muted">{plural(data.data.length, "tenant")}</span>}</Title>
      <div class="filter">
        <a class="button" href={link("admit")}>
          Admit a tenant
        </a>
        {data && data.data.length > 0 && (
          <label>
            Filter <input type="search" value={text} onInput={(event) => setText(event.currentTarget.value)} placeholder="name, suspended, band, isolation" />
          </label>
        )}
      </div>
      {error && <Trouble text={error} retry={reload} />}
      {data && data.data.length === 0 && <Empty>There is no tenant yet.</Empty>}
      <p class="muted note above" role="status">
        {wanted && `${plural(found.length, "tenant")} found. `}
        {found.length > SHOWN && `The first ${SHOWN} are shown; narrow it down.`}
      </p>
      {found.length > 0 && (
        <Table label="Tenants" columns={["Tenant", "State", "Band", number("Weight"), "Isolation", number("Models"), number("Running"), number("Waiting"), number("Concurrency cap"), number("Requests per minute")]}>
          {found.slice(0, SHOWN).map((tenant) => {
            const now = live.snapshot && workOf(tenant.name);
            return (
              <tr key={tenant.name}>
                <th scope="row">
                  <a href={link("tenants", tenant.name)}>{tenant.name}</a>
                </th>
                <td>
                  <State state={stateOf(tenant)} />
                </td>
                <td>{tenant.band}</td>
                <td class="n">{tenant.weight}</td>
                <td>{tenant.isolation}</td>
                <td class="n">{Object.keys(tenant.models).length}</td>
                <td class="n">{now ? count(now.running) : "–"}</td>
                <td class="n">{now ? count(now.queued) : "–"}</td>
                <td class="n">{cap(tenant.caps.max_concurrency)}</td>
                <td class="n">{cap(tenant.caps.requests_per_minute)}</td>
              </tr>
            );
          })}
        </Table>
      )}
    </>
  );
}
