// What was used: by month, by day of one, by tenant or model; as a table, a chart, and a file.

import { useState } from "preact/hooks";
import { query, Refused } from "../api";
import type { Api } from "../api";
import { Bars } from "../bars";
import type { BarOf } from "../bars";
import { useConsole, useLoaded } from "../context";
import { count, plural, seconds } from "../format";
import { Bar, Empty, number, Table, Title, Trouble, useWork } from "../parts";
import { link } from "../route";
import type { Measures, TenantList, UsageAnswer, UsageLineAnswer } from "../types";
import { Batches } from "./batches";
import { BudgetLine } from "./tenant_now";

const MONTHS = 12;
const SHOWN = 200;

/** The last months, UTC, the newest last. */
function months(): string[] {
  const now = new Date();
  return Array.from({ length: MONTHS }, (_, index) => new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - (MONTHS - 1 - index), 1)).toISOString().slice(0, 7));
}

function daysOf(month: string): string[] {
  const last = new Date(Date.UTC(Number(month.slice(0, 4)), Number(month.slice(5)), 0)).getUTCDate();
  return Array.from({ length: last }, (_, index) => `${month}-${String(index + 1).padStart(2, "0")}`);
}

const tokens = (line: Measures): number => line.prompt_tokens + line.completion_tokens;

/** Prompt and completion tokens of each period. */
function bars(periods: string[], lines: UsageLineAnswer[]): BarOf[] {
  const sums = new Map(periods.map((name) => [name, { name, lower: 0, upper: 0 }]));
  for (const line of lines) {
    const bar = sums.get(line.day) ?? sums.get(line.day.slice(0, 7));
    if (bar) Object.assign(bar, { lower: bar.lower + line.prompt_tokens, upper: bar.upper + line.completion_tokens });
  }
  return [...sums.values()];
}

export function UsagePage() {
  const { me } = useConsole();
  const all = months();
  const [month, setMonth] = useState(all[all.length - 1] ?? "");
  const [tenant, setTenant] = useState("");
  const isOperator = me.role === "operator";
  const tenants = useLoaded((api, signal) => (isOperator ? api.get<TenantList>("/tenants", signal) : Promise.resolve(null)), 0);
  const days = daysOf(month);
  const range = { from: days[0] ?? "", to: days[days.length - 1] ?? "", tenant };
  const split = isOperator && !tenant ? "tenant" : "model";
  const asked = [
    { from: `${all[0]}-01`, tenant, group_by: "day" },
    { ...range, group_by: split },
  ].map((fields) => `/usage${query(fields)}`);
  const { data, error, status, reload } = useLoaded((api, signal) => inTurn(api, asked, signal), 60_000, ...asked);
  const [year, table] = data ?? [];
  return (
    <>
      <Title text="Usage">{table && <span class="muted">{plural(table.total.requests, "request")} in {month}</span>}</Title>
      <div class="filter">
        <label>
          Month{" "}
          <select value={month} onChange={(event) => setMonth(event.currentTarget.value)}>
            {[...all].reverse().map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </label>
        {isOperator && (
          <label>
            Tenant{" "}
            <select value={tenant} onChange={(event) => setTenant(event.currentTarget.value)}>
              <option value="">all</option>
              {tenants.data?.data.map((one) => (
                <option key={one.name}>{one.name}</option>
              ))}
            </select>
          </label>
        )}
        <Download range={range} split={split} month={month} />
      </div>
      {error && (status === 404 && !tenant ? <Empty>This gateway keeps no usage ledger.</Empty> : <Trouble text={error} retry={reload} />)}
      {year && (
        <>
          {(tenant || !isOperator) && <BudgetLine budget={year.budgets?.[0]} currency={year.currency} />}
          <section aria-labelledby="year-title">
            <h2 id="year-title">
              Tokens by month <small>UTC</small>
            </h2>
            <Bars label={`Tokens of the last ${MONTHS} months`} bars={bars(all, year.data)} chosen={month} />
          </section>
          <section aria-labelledby="month-title">
            <h2 id="month-title">
              Tokens by day <small>{month}, UTC</small>
            </h2>
            <Bars label={`Tokens of each day of ${month}`} bars={bars(days, year.data)} />
            <p class="legend note muted">
              <span class="lower" /> prompt <span class="upper" /> completion
            </p>
          </section>
        </>
      )}
      {table && <Lines answer={table} split={split} month={month} />}
      <Batches tenant={tenant} withTenant={isOperator && !tenant} />
    </>
  );
}

/** One after the other: the gateway answers one query of a tenant at a time. */
async function inTurn(api: Api, asked: string[], signal: AbortSignal): Promise<UsageAnswer[]> {
  const answers: UsageAnswer[] = [];
  for (const where of asked) answers.push(await patiently(() => api.get<UsageAnswer>(where, signal)));
  return answers;
}

/** The query that was asked before may still be under way. */
async function patiently<T>(ask: () => Promise<T>, tries = 3): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 429 || tries === 1) throw error;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    return patiently(ask, tries - 1);
  }
}

function Download({ range, split, month }: { range: Record<string, string>; split: string; month: string }) {
  const { api } = useConsole();
  const { busy, error, run } = useWork();
  const save = (group_by: string): void => run(() => patiently(() => api.save(`/usage${query({ ...range, group_by, format: "csv" })}`, `usage-${range["tenant"] ? `${range["tenant"]}-` : ""}${month}.csv`)), () => undefined);
  return (
    <>
      <button disabled={busy} onClick={() => save(split)}>
        CSV by {split}
      </button>
      <button disabled={busy} onClick={() => save(`day,${split}`)}>
        CSV by {split} and day
      </button>
      {error && <Trouble text={error} />}
    </>
  );
}

function Lines({ answer, split, month }: { answer: UsageAnswer; split: "tenant" | "model"; month: string }) {
  const lines = [...answer.data].sort((a, b) => tokens(b) - tokens(a));
  const most = Math.max(1, ...lines.map(tokens));
  if (lines.length === 0) return <Empty>Nothing was used in {month}.</Empty>;
  return (
    <section aria-labelledby="lines-title">
      <h2 id="lines-title">
        By {split} <small>{month}, UTC</small>
      </h2>
      <Table
        label={`Usage by ${split}`}
        columns={[split === "tenant" ? "Tenant" : "Model", "Tokens", number("Prompt"), number("of it cached"), number("Completion"), number("Requests"), number("Slot time"), answer.currency && number(answer.currency)]}
        foot={
          <tr>
            <th scope="row">All</th>
            <td class="tabular">{count(tokens(answer.total))}</td>
            <Figures line={answer.total} currency={answer.currency} />
          </tr>
        }
      >
        {lines.slice(0, SHOWN).map((line) => (
          <tr key={line[split]}>
            <th scope="row">{split === "tenant" ? <a href={link("tenants", line.tenant)}>{line.tenant}</a> : line.model}</th>
            <td>
              <Bar value={tokens(line)} of={most} label={`tokens of ${line[split]}`} /> <span class="tabular">{count(tokens(line))}</span>
            </td>
            <Figures line={line} currency={answer.currency} />
          </tr>
        ))}
      </Table>
      {lines.length > SHOWN && <p class="note muted">The {SHOWN} with the most tokens are shown; the file has all {count(lines.length)}.</p>}
    </section>
  );
}

function Figures({ line, currency }: { line: Measures; currency: string | null }) {
  return (
    <>
      <td class="n">{count(line.prompt_tokens)}</td>
      <td class="n">{count(line.cached_tokens)}</td>
      <td class="n">{count(line.completion_tokens)}</td>
      <td class="n">{count(line.requests)}</td>
      <td class="n">{seconds(line.slot_s)}</td>
      {currency && <td class="n">{line.cost ?? "–"}</td>}
    </>
  );
}
