// One model of one tenant: how it fared in the last minutes, and by which limit it is judged.

import { useMemo } from "preact/hooks";
import { Chart } from "../chart";
import type { Line } from "../chart";
import { useConsole } from "../context";
import { count, percent, rate, seconds } from "../format";
import { Empty, Title, VerdictMark } from "../parts";
import { link } from "../route";
import { keyOf } from "../store";
import type { ModelAnswer } from "../types";

const LIMITS = {
  objective: "the pool's objective, slo.ttft_s",
  usual: "five times what is usual for it, and at least 1 s",
  default: "until it is known what is usual for it",
};

export function ModelPage({ tenant, model }: { tenant: string; model: string }) {
  const { live } = useConsole();
  const name = `${tenant}/${model}`;
  const found = live.models.find((each) => each.tenant === tenant && each.model === model);
  return (
    <>
      <Title text={name}>{found && <VerdictMark verdict={found.verdict} />}</Title>
      {found ? (
        <>
          {found.reason && <p class={`reason big ${found.verdict}`}>{found.reason}</p>}
          <Facts model={found} />
          <Charts model={found} />
          <p class="links">
            {found.adapter && <AdapterLink tenant={tenant} adapter={found.adapter} />} <a href={link("tenants", tenant)}>Tenant {tenant}</a>
          </p>
        </>
      ) : (
        live.snapshot && (
          <Empty>
            Of {name} nothing ended in the last five minutes and nothing waits, or it is among the models that are not shown. <a href={link()}>All models</a>
          </Empty>
        )
      )}
    </>
  );
}

function AdapterLink({ tenant, adapter }: { tenant: string; adapter: string }) {
  const own = adapter.startsWith(`${tenant}/`);
  return <a href={own ? link("adapters", tenant, adapter.slice(tenant.length + 1)) : link("adapters", "-", adapter)}>Adapter {adapter}</a>;
}

function Facts({ model }: { model: ModelAnswer }) {
  const rows: [string, string][] = [
    ["First token, p50 and p99", `${seconds(model.first_token_p50_s)} and ${seconds(model.first_token_p99_s)}`],
    ["Slow from", `${seconds(model.limit_s)}: ${LIMITS[model.limit_source]}`],
    ["Usual first token", seconds(model.usual_s)],
    ["Wait for a replica, p99", seconds(model.queue_p99_s)],
    ["Whole answer, p50 and p99", `${seconds(model.answer_p50_s)} and ${seconds(model.answer_p99_s)}`],
    ["Waiting now", model.queued ? `${count(model.queued)}, the oldest for ${seconds(model.oldest_s)}` : "0"],
    ["Requests", `${rate(model.requests_per_s)}/s, ${rate(model.tokens_per_s)} tokens/s`],
    ["Failed, late, capped", `${count(model.failed)}, ${count(model.late)}, ${count(model.capped)} (${percent(model.error_rate)} errors)`],
    ["Pool", model.pool || "–"],
  ];
  return (
    <section aria-labelledby="facts-title">
      <h2 id="facts-title">The last minute</h2>
      <dl class="facts wide">
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}

function Charts({ model }: { model: ModelAnswer }) {
  const { live } = useConsole();
  const { history } = live;
  const one = live.byModel.get(keyOf(model));
  const limit = model.limit_s;
  const [at, times, traffic] = useMemo((): [number[], Line[], Line[]] => {
    if (!history || !one) return [[], [], []];
    const first = history.ends_at - (history.buckets - 0.5) * history.bucket_s;
    const known = [...one.first_token_p99_s, ...one.queue_p99_s].filter((value) => value !== null);
    const bound: Line[] = limit <= 3 * Math.max(0, ...known) ? [{ label: "limit", values: one.requests.map(() => limit), colour: "--muted", dash: [4, 4] }] : [];
    return [
      one.requests.map((_, index) => first + index * history.bucket_s),
      [
        { label: "p99 first token", values: one.first_token_p99_s, colour: "--accent" },
        { label: "p99 wait", values: one.queue_p99_s, colour: "--slow" },
        ...bound,
      ],
      [
        { label: "requests", values: one.requests, colour: "--accent", bars: true },
        { label: "errors", values: one.errors, colour: "--failing", bars: true },
      ],
    ];
  }, [history, one, limit]);
  if (at.length === 0 || !history) return <Empty>Its last five minutes are not here yet.</Empty>;
  return (
    <section aria-labelledby="chart-title">
      <h2 id="chart-title">
        Five minutes <small>in steps of {history.bucket_s} s</small>
      </h2>
      <h3>Latency</h3>
      <Chart label={`p99 first token and p99 wait of ${keyOf(model)} over five minutes`} at={at} lines={times} show={seconds} />
      <h3>Requests that ended</h3>
      <Chart label={`Requests and errors of ${keyOf(model)} over five minutes`} at={at} lines={traffic} show={(value) => (value === null ? "–" : Number.isInteger(value) ? count(value) : "")} />
    </section>
  );
}
