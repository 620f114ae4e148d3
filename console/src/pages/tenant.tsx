// One tenant: what it does now, its settings and where each comes from, its models, use, keys and events.

import { path } from "../api";
import type { Api } from "../api";
import { useConsole, useLoaded } from "../context";
import type { Action, Loaded } from "../context";
import { count, moment, percent, plural, seconds } from "../format";
import { Act, ACTIONS, Bar, Empty, number, State, Table, Title, Trouble } from "../parts";
import { link } from "../route";
import type { TenantDetail, UsageAnswer, ValueAnswer } from "../types";
import { Aliases } from "./aliases";
import { Changes } from "./events";
import { Models } from "./fleet";
import { Keys } from "./keys";
import { parts } from "./tenant_draft";
import { Effect, useUsage } from "./tenant_now";

export function TenantPage({ name }: { name: string }) {
  const { live } = useConsole();
  const { data, error, status, reload } = useLoaded((api, signal) => api.get<TenantDetail>(`/tenants${path(name)}`, signal), 10_000, name);
  const usage = useUsage(name);
  const models = live.models.filter((model) => model.tenant === name);
  const removed = data?.state === "removed";
  return (
    <>
      <Title text={name}>{data && <State state={data.state} />}</Title>
      {error &&
        (status === 404 ? (
          <Empty>
            There is no tenant {name}. <a href={link("tenants")}>All tenants</a>
          </Empty>
        ) : (
          <Trouble text={error} retry={reload} />
        ))}
      {data && <Origin tenant={data} />}
      {data && !removed && (
        <>
          <Actions tenant={data} reload={reload} />
          <section aria-label="Now" class="near">
            <Effect tenant={data} usage={usage} />
          </section>
          <section aria-labelledby="models-title">
            <h2 id="models-title">
              Models <small>the last minute</small>
            </h2>
            <Models models={models} short />
          </section>
          <Settings tenant={data} reload={reload} />
          <Aliases tenant={name} />
          <section aria-labelledby="keys-title">
            <h2 id="keys-title">Keys</h2>
            <Keys tenant={name} />
          </section>
        </>
      )}
      {data && <Usage usage={usage} />}
      {data && <Changes tenant={name} revision={data.revision} />}
    </>
  );
}

/** How it came to be as it is. */
function Origin({ tenant }: { tenant: TenantDetail }) {
  const facts = [
    tenant.declared ? "declared in fleet.yaml" : "",
    tenant.admitted ? "admitted at run time" : "",
    tenant.account === tenant.name ? "" : `counted as ${tenant.account}, since ${plural(tenant.generation, "tenant")} of this name ${tenant.generation === 1 ? "was" : "were"} removed before`,
    tenant.revision ? `last changed ${moment(tenant.changed_at)} by ${tenant.changed_by}` : "",
  ];
  return (
    <>
      <p class="muted">{facts.filter(Boolean).join("; ")}.</p>
      {tenant.problems.map((problem) => (
        <Trouble key={problem} text={`Its changes are not applied: ${problem}`} />
      ))}
    </>
  );
}

function Actions({ tenant, reload }: { tenant: TenantDetail; reload: () => void }) {
  const { api } = useConsole();
  const can = actionsOn(api, tenant, reload);
  return (
    <div class="buttons left">
      <a class="button solid" href={link("tenants", tenant.name, "change")}>
        Change
      </a>
      {tenant.state === "suspended" ? <Act action={can.resume()}>Resume</Act> : <Act action={can.suspend()}>Suspend</Act>}
      <Act action={can.remove()}>Remove</Act>
      <a class="button" href={link("admit", tenant.name)}>
        Admit one like it
      </a>
      <a href={link("adapters", tenant.name)}>Its adapters</a>
    </div>
  );
}

function actionsOn(api: Api, tenant: TenantDetail, reload: () => void) {
  const { name } = tenant;
  const where = `/tenants${path(name)}`;
  return {
    suspend: (): Action => ({
      title: `Suspend ${name}?`,
      text: "Its keys get a 403 account_suspended from now on, and so does what waits. What runs ends. Nothing is deleted: resuming it brings all of it back at once.",
      verb: "Suspend it",
      danger: true,
      run: () => api.act("POST", `${where}/suspend`).finally(reload),
      done: `${name} is suspended.`,
    }),
    resume: (): Action => ({
      title: `Resume ${name}?`,
      text: "Its keys open again what they opened before, at once.",
      verb: "Resume it",
      run: () => api.act("POST", `${where}/resume`).finally(reload),
      done: `${name} is resumed.`,
    }),
    remove: (): Action => ({
      title: `Remove ${name}?`,
      text: "Its keys open nothing from now on, what waits is refused, what runs ends. Its adapters, their files and its aliases are deleted. What it used stays in the ledger. This cannot be undone.",
      typed: name,
      verb: "Remove it",
      danger: true,
      run: () => api.act("DELETE", `${where}?revision=${tenant.revision}`).finally(reload),
      done: `${name} is removed.`,
    }),
  };
}

// -- settings -------------------------------------------------------------------------------------------------

function Settings({ tenant, reload }: { tenant: TenantDetail; reload: () => void }) {
  return (
    <section aria-labelledby="settings-title">
      <h2 id="settings-title">
        Settings <small>run time wins over fleet.yaml, and that over the default</small>
      </h2>
      <Table label="Settings" columns={["Setting", "Is", "From", ACTIONS]}>
        {tenant.values.map((one) => (
          <SettingRow key={one.path} tenant={tenant} one={one} reload={reload} />
        ))}
      </Table>
    </section>
  );
}

function SettingRow({ tenant, one, reload }: { tenant: TenantDetail; one: ValueAnswer; reload: () => void }) {
  const { api } = useConsole();
  const here = one.source === "run time";
  const below = one.declared === null || one.declared === undefined ? "" : `fleet.yaml says ${shown(one.path, one.declared)}`;
  const action: Action = {
    title: `Take ${one.path} back?`,
    text: `What was set at run time is forgotten: ${below ? `${below}, and that counts again` : "fleet.yaml says nothing of it, so the default counts, or there is none any more"}.`,
    verb: "Take it back",
    run: () => api.act("PATCH", `/tenants${path(tenant.name)}`, { reset: [one.path], revision: tenant.revision }).finally(reload),
    done: `${one.path} of ${tenant.name} is no longer set at run time.`,
  };
  return (
    <tr>
      <th scope="row">{one.path}</th>
      <td class="prose">{shown(one.path, one.value)}</td>
      <td class={one.source === "default" ? "prose muted" : "prose"}>
        {one.source}
        {here && (
          <small>
            {" "}
            {one.at !== null && moment(one.at)} {one.by && `by ${one.by}`}
            {below && `; ${below}`}
          </small>
        )}
      </td>
      <td>{here && one.path !== "suspended" && <Act action={action}>Take back</Act>}</td>
    </tr>
  );
}

/** A value as an operator reads it. */
function shown(where: string, value: unknown): string {
  if (value === null || value === undefined || (Array.isArray(value) && value.length === 0)) return "none";
  if (where.startsWith("models.")) {
    const { model, fallback } = parts(value);
    return fallback ? `${model}, else ${fallback}` : model;
  }
  if (where === "budget.soft") return percent(Number(value));
  if (typeof value === "number") return where.endsWith("_s") ? seconds(value) : count(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// -- usage ----------------------------------------------------------------------------------------------------

function Usage({ usage: { data, error, status, reload } }: { usage: Loaded<UsageAnswer> }) {
  const days = [...(data?.data ?? [])].sort((a, b) => (a.day < b.day ? 1 : -1));
  const most = Math.max(1, ...days.map((day) => day.prompt_tokens + day.completion_tokens));
  return (
    <section aria-labelledby="usage-title">
      <h2 id="usage-title">
        Usage <small>30 days, UTC</small>
      </h2>
      {error && (status === 404 ? <Empty>This gateway keeps no usage ledger.</Empty> : <Trouble text={error} retry={reload} />)}
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
