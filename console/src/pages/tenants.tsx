// Every tenant, and one with its use, its models, its caps and its keys.

import type { Api } from "../api";
import { useConsole, useLoaded } from "../context";
import { count, moment, plural, seconds, words } from "../format";
import { ACTIONS, Bar, Empty, number, Table, Title, Trouble } from "../parts";
import { link } from "../route";
import type { BudgetAnswer, TenantAnswer, TenantList, UsageAnswer } from "../types";
import { Models } from "./fleet";
import { Keys } from "./keys";

const load = (api: Api, signal: AbortSignal): Promise<TenantList> => api.get("/tenants", signal);

/** What a tenant has in all pools now: requests that wait, requests in all, slots. */
function useNow(): Map<string, { queued: number; tickets: number; slots: number }> {
  const { live } = useConsole();
  const sums = new Map<string, { queued: number; tickets: number; slots: number }>();
  for (const tenant of live.snapshot?.pools.flatMap((pool) => pool.tenants) ?? []) {
    const sum = sums.get(tenant.name) ?? { queued: 0, tickets: 0, slots: 0 };
    sums.set(tenant.name, { queued: sum.queued + tenant.queued, tickets: sum.tickets + tenant.tickets, slots: sum.slots + tenant.slots });
  }
  return sums;
}

export function Tenants() {
  const { data, error, reload } = useLoaded(load, 0);
  const now = useNow();
  return (
    <>
      <Title text="Tenants">{data && <span class="muted">{plural(data.data.length, "tenant")}</span>}</Title>
      {error && <Trouble text={error} retry={reload} />}
      {data && (
        <Table label="Tenants" columns={["Tenant", "Band", number("Weight"), "Isolation", number("Models"), number("Waiting"), number("Running"), number("Concurrency cap")]}>
          {data.data.map((tenant) => {
            const has = now.get(tenant.name);
            return (
              <tr key={tenant.name}>
                <th scope="row">
                  <a href={link("tenants", tenant.name)}>{tenant.name}</a>
                </th>
                <td>{tenant.band}</td>
                <td class="n">{tenant.weight}</td>
                <td>{tenant.isolation}</td>
                <td class="n">{Object.keys(tenant.models).length}</td>
                <td class="n">{count(has?.queued ?? 0)}</td>
                <td class="n">{count((has?.tickets ?? 0) - (has?.queued ?? 0))}</td>
                <td class="n">{count(tenant.caps["max_concurrency"] ?? 0)}</td>
              </tr>
            );
          })}
        </Table>
      )}
    </>
  );
}

export function TenantPage({ name }: { name: string }) {
  const { live } = useConsole();
  const { data, error, reload } = useLoaded(load, 0);
  const tenant = data?.data.find((one) => one.name === name);
  const models = live.models.filter((model) => model.tenant === name);
  return (
    <>
      <Title text={name}>{tenant && <span class="muted">{tenant.band} band, {tenant.isolation}</span>}</Title>
      {error && <Trouble text={error} retry={reload} />}
      {data && !tenant && (
        <Empty>
          There is no tenant {name}. <a href={link("tenants")}>All tenants</a>
        </Empty>
      )}
      {tenant && (
        <>
          <section aria-labelledby="models-title">
            <h2 id="models-title">
              Models <small>the last minute</small>
            </h2>
            <Models models={models} short />
            <p class="note muted">
              It calls{" "}
              {Object.entries(tenant.models)
                .slice(0, 50)
                .map(([alias, meant]) => (alias === meant ? alias : `${alias} (${meant})`))
                .join(", ") || "no model of fleet.yaml"}
              .
            </p>
          </section>
          <Usage name={name} />
          <Caps tenant={tenant} />
          <section aria-labelledby="keys-title">
            <h2 id="keys-title">
              Keys <small>{plural(tenant.declared_keys, "key")} in fleet.yaml, and those made at run time</small>
            </h2>
            <Keys tenant={name} />
          </section>
        </>
      )}
    </>
  );
}

/** The first page of a tenant's own key. */
export function OwnTenant({ name }: { name: string }) {
  const { data, error, reload } = useLoaded(load, 60_000);
  const tenant = data?.data[0];
  return (
    <>
      <Title text={name}>{tenant && <span class="muted">{plural(Object.keys(tenant.models).length, "model")} given by the operators</span>}</Title>
      {error && <Trouble text={error} retry={reload} />}
      {tenant && (
        <>
          <section aria-labelledby="models-title">
            <h2 id="models-title">
              Models <small>besides the adapters of its own</small>
            </h2>
            <OwnModels tenant={tenant} />
          </section>
          <Caps tenant={tenant} />
        </>
      )}
    </>
  );
}

function OwnModels({ tenant }: { tenant: TenantAnswer }) {
  const models = Object.entries(tenant.models);
  if (models.length === 0) return <Empty>The operators have given it none.</Empty>;
  return (
    <Table label="Models" columns={["Model", "Adapter or base model", "Default", ACTIONS]}>
      {models.map(([alias, meant]) => (
        <tr key={alias}>
          <th scope="row">{alias}</th>
          <td>{meant}</td>
          <td>{alias === tenant.default_model ? "where a request names none" : ""}</td>
          <td>
            <a href={link("playground", alias)}>Try it</a>
          </td>
        </tr>
      ))}
    </Table>
  );
}

function Usage({ name }: { name: string }) {
  const query = `/usage?tenant=${encodeURIComponent(name)}&group_by=day`;
  const { data, error, status, reload } = useLoaded((api, signal) => api.get<UsageAnswer>(query, signal), 30_000, query);
  const days = [...(data?.data ?? [])].sort((a, b) => (a.day < b.day ? 1 : -1));
  const most = Math.max(1, ...days.map((day) => day.prompt_tokens + day.completion_tokens));
  return (
    <section aria-labelledby="usage-title">
      <h2 id="usage-title">
        Usage <small>30 days, UTC</small>
      </h2>
      {error && (status === 404 ? <Empty>This gateway keeps no usage ledger.</Empty> : <Trouble text={error} retry={reload} />)}
      {data && <BudgetLine budget={data.budgets?.[0]} currency={data.currency} />}
      {data && days.length === 0 && <Empty>Nothing was used in these days.</Empty>}
      {days.length > 0 && (
        <Table label="Usage by day" columns={["Day", "Tokens", number("Prompt"), number("Completion"), number("Requests"), number("Slot time"), data?.currency && number(data.currency)]}>
          {days.map((day) => (
            <tr key={day.day}>
              <th scope="row">{day.day}</th>
              <td>
                <Bar value={day.prompt_tokens + day.completion_tokens} of={most} label={`tokens on ${day.day}`} /> <span class="tabular">{count(day.prompt_tokens + day.completion_tokens)}</span>
              </td>
              <td class="n">{count(day.prompt_tokens)}</td>
              <td class="n">{count(day.completion_tokens)}</td>
              <td class="n">{count(day.requests)}</td>
              <td class="n">{seconds(day.slot_s)}</td>
              {data?.currency && <td class="n">{day.cost ?? "–"}</td>}
            </tr>
          ))}
        </Table>
      )}
    </section>
  );
}

export function BudgetLine({ budget, currency }: { budget: BudgetAnswer | undefined; currency: string | null }) {
  if (!budget) return <p class="note muted above">It has no budget.</p>;
  const levels = { below: "", soft: "above its soft limit", spent: "spent: requests are refused" };
  const inMoney = budget.monthly_cost !== null && budget.monthly_cost !== undefined;
  const used = inMoney ? Number(budget.used_cost) : (budget.used_tokens ?? 0);
  const limit = inMoney ? Number(budget.monthly_cost) : (budget.monthly_tokens ?? 0);
  return (
    <p class="note above">
      Budget of this month: <Bar limit value={used} of={limit} label="used of this month's budget" /> {inMoney ? `${budget.used_cost} of ${budget.monthly_cost} ${currency}` : `${count(used)} of ${count(limit)} tokens`}{" "}
      {levels[budget.level] && <b class={`verdict ${budget.level === "spent" ? "failing" : "slow"}`}>{levels[budget.level]}</b>} <span class="muted">until {moment(Date.parse(budget.resets_at) / 1000)}</span>
    </p>
  );
}

function Caps({ tenant }: { tenant: TenantAnswer }) {
  const { me } = useConsole();
  const has = useNow().get(tenant.name);
  const isOperator = me.role === "operator";
  const now: Record<string, number> = isOperator ? { max_queued: has?.queued ?? 0 } : {};
  return (
    <section aria-labelledby="caps-title">
      <h2 id="caps-title">
        Caps <small>{isOperator ? "changed in fleet.yaml" : "set by the operators"}</small>
      </h2>
      <dl class="facts wide">
        {Object.entries(tenant.caps).map(([cap, limit]) => (
          <div key={cap}>
            <dt>{words(cap.replace(/_s$/, ""))}</dt>
            <dd>
              {limit === null ? <span class="muted">none</span> : cap.endsWith("_s") ? seconds(limit) : count(limit)}
              {limit !== null && cap in now && (
                <>
                  {" "}
                  <Bar limit value={now[cap] ?? 0} of={limit} label={words(cap)} /> <small>{count(now[cap] ?? 0)} now</small>
                </>
              )}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
