// What a tenant has and does now, beside its caps: the effect of a change.

import type { ComponentChildren } from "preact";
import { useConsole, useLoaded } from "../context";
import type { Loaded } from "../context";
import { count, moment, percent, rate } from "../format";
import { Bar } from "../parts";
import type { BudgetAnswer, TenantDetail, UsageAnswer } from "../types";

interface Work {
  queued: number;
  running: number;
}

/** What tenants have in all pools now. null: nothing, or too little to be in the snapshot. */
export function useWorkOf(): (name: string) => Work | null {
  const { live } = useConsole();
  const sums = new Map<string, Work>();
  let leftOut = 0;
  for (const pool of live.snapshot?.pools ?? []) {
    leftOut += pool.tenants_left_out;
    for (const { name, queued, tickets } of pool.tenants) {
      const sum = sums.get(name) ?? { queued: 0, running: 0 };
      sums.set(name, { queued: sum.queued + queued, running: sum.running + tickets - queued });
    }
  }
  return (name) => sums.get(name) ?? (leftOut || !live.snapshot ? null : { queued: 0, running: 0 });
}

/** What a tenant used in the last 30 days, by day. */
export function useUsage(name: string): Loaded<UsageAnswer> {
  const query = `/usage?tenant=${encodeURIComponent(name)}&group_by=day`;
  return useLoaded((api, signal) => api.get<UsageAnswer>(query, signal), 15_000, query);
}

export function Effect({ tenant, usage }: { tenant: TenantDetail; usage: Loaded<UsageAnswer> }) {
  const { live } = useConsole();
  const now = useWorkOf()(tenant.name);
  const models = live.models.filter((model) => model.tenant === tenant.name);
  const sum = (field: "requests" | "requests_per_s" | "tokens_per_s" | "capped" | "failed" | "late"): number => models.reduce((all, model) => all + model[field], 0);
  const cap = (name: string): number | null => (tenant.values.find((one) => one.path === `caps.${name}`)?.value ?? null) as number | null;
  const errors = sum("failed") + sum("late");
  const today = usage.data?.data.find((day) => day.day === new Date().toISOString().slice(0, 10));
  return (
    <>
      <dl class="totals">
        <Figure name="Running" value={now?.running ?? null} cap={cap("max_concurrency")} unit="sequences" />
        <Figure name="Waiting" value={now?.queued ?? null} cap={cap("max_queued")} />
        <Figure name="Requests, last minute" value={sum("requests")} cap={cap("requests_per_minute")} />
        <Figure name="Completion tokens" value={sum("tokens_per_s")} show={rate} unit="per second" />
        <Figure name="Refused by its caps, last minute" value={sum("capped")} bad={sum("capped") > 0} />
        <Figure name="Errors, last minute" value={errors / Math.max(1, sum("requests"))} show={percent} bad={errors > 0} />
        {today && <Figure name="Used today" value={today.prompt_tokens + today.completion_tokens} unit="tokens" />}
      </dl>
      {usage.data && <BudgetLine budget={usage.data.budgets?.[0]} currency={usage.data.currency} />}
      {live.snapshot !== null && live.snapshot.models_left_out > 0 && <p class="note muted">Of the fleet's models, {count(live.snapshot.models_left_out)} are not shown, and not counted here.</p>}
    </>
  );
}

function Figure({ name, value, cap, unit, bad, show = count }: { name: string; value: number | null; cap?: number | null; unit?: string; bad?: boolean; show?: (value: number) => string }) {
  const notes: ComponentChildren = cap === undefined || cap === null ? unit : `of ${count(cap)}${unit ? ` ${unit}` : ""}`;
  return (
    <div>
      <dt>{name}</dt>
      <dd class={bad ? "bad" : ""}>
        {value === null ? "–" : show(value)} {notes && <small>{notes}</small>}
        {typeof cap === "number" && (
          <div class="under">
            <Bar limit value={value ?? 0} of={cap} label={name} />
          </div>
        )}
      </dd>
    </div>
  );
}

export function BudgetLine({ budget, currency }: { budget: BudgetAnswer | undefined; currency: string | null }) {
  if (!budget) return <p class="note muted">It has no budget.</p>;
  const levels = { below: "", soft: "above its soft limit", spent: "spent: requests are refused" };
  const inMoney = budget.monthly_cost !== null && budget.monthly_cost !== undefined;
  const used = inMoney ? Number(budget.used_cost) : (budget.used_tokens ?? 0);
  const limit = inMoney ? Number(budget.monthly_cost) : (budget.monthly_tokens ?? 0);
  return (
    <p class="note">
      Budget of this month: <Bar limit value={used} of={limit} label="used of this month's budget" /> {inMoney ? `${budget.used_cost} of ${budget.monthly_cost} ${currency}` : `${count(used)} of ${count(limit)} tokens`}{" "}
      {levels[budget.level] && <b class={`verdict ${budget.level === "spent" ? "failing" : "slow"}`}>{levels[budget.level]}</b>} <span class="muted">until {moment(Date.parse(budget.resets_at) / 1000)}</span>
    </p>
  );
}
