// The plan that was published last: who is to share what and why, what tenants would see, what was seen since.

import { useLoaded } from "../context";
import { count, moment, percent, plural, rate, seconds } from "../format";
import { Empty, number, State, Table, Title, Trouble } from "../parts";
import type { LookAnswer, PlanAnswer, PlanKept, PlanModel, PublishedLook, PublishedPlan } from "../types";
import { Busy, FirstTokens, Memory } from "./plan_drawings";

const SHOWN = 200; // models in a table

export function Plan() {
  const { data, error, reload } = useLoaded((api, signal) => api.get<PlanKept>("/plan", signal), 60_000);
  return (
    <>
      <Title text="Plan">{data?.plan && <span class="muted">published {moment(data.plan.at)} by {data.plan.actor}</span>}</Title>
      {error && <Trouble text={error} retry={reload} />}
      {data && !data.plan && (
        <Empty>
          No plan was published yet. `tenantry plan --publish` makes one of what was asked of this fleet and shows it here; `tenantry plan --watch` goes on to compare it with what is measured. Neither changes anything.
        </Empty>
      )}
      {data?.plan && <Published plan={data.plan} look={data.look} />}
    </>
  );
}

function Published({ plan: { answer }, look }: { plan: PublishedPlan; look: PublishedLook | null }) {
  const measured = new Map<string, [number, number]>();
  for (const one of look?.answer.models ?? []) {
    if (one.first_token_p50_s !== null && one.first_token_p99_s !== null) measured.set(one.model, [one.first_token_p50_s, one.first_token_p99_s]);
  }
  return (
    <>
      <p>
        <strong>{plural(answer.devices.planned, "device")}</strong>
        {answer.devices.now !== null && ` instead of the ${count(answer.devices.now)} in use`}. Simulated over {answer.source}, {seconds(answer.duration_s)}, {answer.meets_objectives ? "it meets all objectives." : <strong class="failing">it does not meet all objectives, and no plan tried does.</strong>}
      </p>
      <Since look={look} />
      <Ways answer={answer} />
      <section aria-labelledby="plan-models">
        <h2 id="plan-models">
          Models <small>{plural(answer.models.length + answer.models_left_out, "model")}</small>
        </h2>
        <Models models={answer.models} measured={measured} />
        {answer.models.length + answer.models_left_out > SHOWN && <p class="muted note">The first {SHOWN} are shown; `tenantry plan --json` has all.</p>}
        <FirstTokens models={answer.models} measured={measured} />
      </section>
      <section aria-labelledby="plan-pools">
        <h2 id="plan-pools">Pools</h2>
        <Pools answer={answer} />
        <Busy pools={answer.pools} />
        <Memory pools={answer.pools} />
      </section>
      <Sentences title="What would change the answer" texts={answer.would_change} />
      <Sentences title="What is not known" texts={answer.not_known} />
    </>
  );
}

/** What the watch saw last. */
function Since({ look }: { look: PublishedLook | null }) {
  if (!look) return <Empty>Nobody has compared it with what is measured yet: `tenantry plan --watch` does.</Empty>;
  const { answer } = look;
  const held = answer.advice === answer.wish ? "" : ` It will be ${answer.wish} if the next look finds the same.`;
  return (
    <section aria-labelledby="plan-since">
      <h2 id="plan-since">
        Since then <small>{moment(answer.from_s)} to {moment(answer.to_s)}</small>
      </h2>
      <p>
        <State state={answer.advice} /> {answer.said}.{held}
      </p>
      {answer.differs.length > 0 && (
        <ul class="listed">
          {answer.differs.map((text) => (
            <li key={text}>{text}</li>
          ))}
        </ul>
      )}
      <Measured answer={answer} />
    </section>
  );
}

function Measured({ answer }: { answer: LookAnswer }) {
  if (answer.pools.length === 0) return null;
  return (
    <Table label="Pools as measured" columns={["Pool", number("Engines ran"), number("Planned"), number("Switching"), number("Planned switching")]}>
      {answer.pools.map((pool) => (
        <tr key={pool.pool}>
          <th scope="row">{pool.pool}</th>
          <td class="n">{percent(pool.busy)}</td>
          <td class="n">{part(pool.planned_busy)}</td>
          <td class="n">{percent(pool.switching)}</td>
          <td class="n">{part(pool.planned_switching)}</td>
        </tr>
      ))}
    </Table>
  );
}

function Ways({ answer }: { answer: PlanAnswer }) {
  const priced = answer.money_per_hour !== null;
  return (
    <Table label="Ways to serve these models" columns={["Way", number("Devices"), priced && number("An hour")]}>
      {answer.devices.now !== null && (
        <tr>
          <th scope="row">now</th>
          <td class="n">{count(answer.devices.now)}</td>
          {priced && <td />}
        </tr>
      )}
      {answer.ways.map((way) => (
        <tr key={way.way}>
          <th scope="row">{way.way}</th>
          <td class={way.devices === null ? "prose" : "n"}>{way.devices === null ? way.why_not : count(way.devices)}</td>
          {priced && <td class="n">{money(way.money_per_hour)}</td>}
        </tr>
      ))}
      <tr>
        <th scope="row">
          <strong>planned, simulated</strong>
        </th>
        <td class="n">
          <strong>{count(answer.devices.planned)}</strong>
        </td>
        {priced && <td class="n">{money(answer.money_per_hour)}</td>}
      </tr>
    </Table>
  );
}

function Models({ models, measured }: { models: PlanModel[]; measured: Map<string, [number, number]> }) {
  const isMeasured = measured.size > 0;
  return (
    <Table label="Models of the plan" columns={["Model", "Pool", "Served", "Why", number("Requests a day"), number("p50"), number("p99"), isMeasured && number("p99 measured"), number("Objective"), number("In time")]}>
      {models.slice(0, SHOWN).map((model) => (
        <tr key={model.model} data-model={model.model}>
          <th scope="row">{model.model}</th>
          <td>{model.pool}</td>
          <td class="prose">{model.served}</td>
          <td class="prose">
            {model.why}
            {model.missed && <div class="reason failing">misses: {model.missed}</div>}
          </td>
          <td class="n">{rate(model.requests_per_day)}</td>
          <td class="n">{seconds(model.first_token_p50_s?.[0])}</td>
          <td class="n">{seconds(model.first_token_p99_s?.[0])}</td>
          {isMeasured && <td class="n">{seconds(measured.get(model.model)?.[1])}</td>}
          <td class="n">{seconds(model.objective_s)}</td>
          <td class="n">{part(model.in_time)}</td>
        </tr>
      ))}
    </Table>
  );
}

function Pools({ answer }: { answer: PlanAnswer }) {
  return (
    <Table label="Pools of the plan" columns={["Pool", "Strategy", number("Hosts"), "Device", number("Models"), number("Awake"), number("Busy"), number("Switching"), number("Turns an hour")]}>
      {answer.pools.map((pool) => (
        <tr key={pool.pool}>
          <th scope="row">{pool.pool}</th>
          <td>{pool.strategy}</td>
          <td class="n">{count(pool.hosts)}</td>
          <td>{pool.profile === null ? pool.device : `${pool.device}/${pool.profile}`}</td>
          <td class="n">{count(pool.models.length)}</td>
          <td class="n">{count(pool.awake)}</td>
          <td class="n">{part(pool.busy?.[0])}</td>
          <td class="n">{part(pool.switching?.[0])}</td>
          <td class="n">{pool.switches_per_h?.[0] === undefined ? "–" : rate(pool.switches_per_h[0])}</td>
        </tr>
      ))}
    </Table>
  );
}

function Sentences({ title, texts }: { title: string; texts: string[] }) {
  if (texts.length === 0) return null;
  return (
    <section>
      <h2>{title}</h2>
      <ul class="listed">
        {texts.map((text) => (
          <li key={text}>{text}</li>
        ))}
      </ul>
    </section>
  );
}

const part = (value: number | null | undefined): string => (value === null || value === undefined ? "–" : percent(value));
const money = (value: number | null): string => (value === null ? "–" : value.toFixed(2));
