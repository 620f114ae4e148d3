// The fleet at a glance: which model is slow and why, then pools with replicas, slots and queues.

import type { ComponentChildren } from "preact";
import { useConsole } from "../context";
import type { Action } from "../context";
import { path } from "../api";
import type { Api } from "../api";
import { count, percent, plural, rate, seconds, shortAdapter, words } from "../format";
import { Act, Bar, Empty, number, Spark, State, Table, Title, VerdictMark } from "../parts";
import { link } from "../route";
import { keyOf } from "../store";
import type { LiveSnapshot, ModelAnswer, PoolView, ReplicaView, Slot, TenantView } from "../types";

export function Fleet() {
  const { live } = useConsole();
  const { snapshot } = live;
  if (!snapshot) return <Title text="Fleet" />;
  return (
    <>
      <Title text="Fleet">
        <Verdicts models={live.models} />
      </Title>
      <Totals snapshot={snapshot} />
      <section aria-labelledby="models-title">
        <h2 id="models-title">
          Models <small>the last minute, the worst first</small>
        </h2>
        <Models models={live.models} />
        <LeftOut snapshot={snapshot} />
      </section>
      {snapshot.pools.map((pool) => (
        <PoolSection key={pool.name} pool={pool} />
      ))}
    </>
  );
}

function Verdicts({ models }: { models: ModelAnswer[] }) {
  const of = (verdict: string): number => models.filter((model) => model.verdict === verdict).length;
  const [failing, slow, green] = [of("failing"), of("slow"), of("green")];
  return (
    <p class="verdicts" role="status">
      {failing > 0 && <b class="verdict failing">{failing} failing</b>}
      {slow > 0 && <b class="verdict slow">{slow} slow</b>}
      <span class={failing + slow ? "muted" : "verdict green"}>{failing + slow ? `${green} green` : green ? `all ${green} green` : ""}</span>
    </p>
  );
}

function Totals({ snapshot }: { snapshot: LiveSnapshot }) {
  const { total } = snapshot;
  const replicas = snapshot.pools.flatMap((pool) => pool.replicas);
  const ready = replicas.filter((replica) => replica.state === "ready").length;
  return (
    <dl class="totals">
      <Total name="Requests" value={rate(total.requests_per_s)} unit="/s" />
      <Total name="Tokens" value={rate(total.tokens_per_s)} unit="/s" />
      <Total name="Errors" value={percent(total.error_rate)} bad={total.error_rate >= 0.05} />
      <Total name="Waiting" value={count(snapshot.queued)} />
      <Total name="Replicas ready" value={`${ready}`} unit={` of ${replicas.length}`} bad={ready < replicas.length} />
    </dl>
  );
}

function Total({ name, value, unit, bad }: { name: string; value: string; unit?: string; bad?: boolean }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd class={bad ? "bad" : ""}>
        {value}
        {unit && <small>{unit}</small>}
      </dd>
    </div>
  );
}

export function Models({ models, short }: { models: ModelAnswer[]; short?: boolean }) {
  if (models.length === 0) return <Empty>No request has ended in the last five minutes, and none waits.</Empty>;
  return (
    <Table label="Models" columns={["Model", "State", number("First token p99"), "Five minutes", number("p50"), number("Wait p99"), number("Waiting"), number("Requests/s"), number("Tokens/s"), number("Errors")]}>
      {models.map((model) => (
        <ModelRow key={keyOf(model)} model={model} short={short === true} />
      ))}
    </Table>
  );
}

function ModelRow({ model, short }: { model: ModelAnswer; short: boolean }) {
  const { live } = useConsole();
  const history = live.byModel.get(keyOf(model));
  const streams = history?.first_token_p99_s.some((value) => value !== null) ?? false;
  const values = (streams ? history?.first_token_p99_s : history?.queue_p99_s) ?? [];
  const what = streams ? "p99 first token" : "p99 wait";
  return (
    <tr class={model.verdict} data-model={keyOf(model)}>
      <th scope="row">
        <a href={link("models", model.tenant, model.model)} title={keyOf(model)}>
          {!short && <span class="muted">{model.tenant}/</span>}
          {model.model}
        </a>
        {model.reason && <div class="reason">{model.reason}</div>}
      </th>
      <td>
        <VerdictMark verdict={model.verdict} />
      </td>
      <td class="n strong">{seconds(model.first_token_p99_s)}</td>
      <td>
        <Spark values={values} limit={model.limit_s} verdict={model.verdict} label={what} />
      </td>
      <td class="n">{seconds(model.first_token_p50_s)}</td>
      <td class="n">{seconds(model.queue_p99_s)}</td>
      <td class="n">
        {model.queued > 0 ? (
          <>
            {count(model.queued)} <small>for {seconds(model.oldest_s)}</small>
          </>
        ) : (
          <span class="muted">0</span>
        )}
      </td>
      <td class="n">{rate(model.requests_per_s)}</td>
      <td class="n">{rate(model.tokens_per_s)}</td>
      <td class={`n ${model.error_rate >= 0.05 ? "bad" : ""}`}>
        {percent(model.error_rate)}
        {model.capped > 0 && <small title="refused by the tenant's own caps"> +{count(model.capped)} capped</small>}
      </td>
    </tr>
  );
}

function LeftOut({ snapshot }: { snapshot: LiveSnapshot }) {
  const notes = [];
  if (snapshot.models_left_out > 0) notes.push(`${plural(snapshot.models_left_out, "model")} that ${snapshot.models_left_out === 1 ? "is" : "are"} better off not shown`);
  if (snapshot.other) notes.push(`${rate(snapshot.other.requests_per_s)} requests/s of rarer models together`);
  return notes.length ? <p class="muted note">And {notes.join("; ")}.</p> : null;
}

function PoolSection({ pool }: { pool: PoolView }) {
  const waiting = Object.entries(pool.queued_by_band).filter(([, n]) => n > 0);
  const objectives = [
    pool.ttft_slo_s !== null && `first token within ${seconds(pool.ttft_slo_s)}`,
    pool.itl_slo_s !== null && `${seconds(pool.itl_slo_s)} between tokens`,
  ].filter(Boolean);
  const title = `pool-${pool.name}`;
  return (
    <section aria-labelledby={title} class="pool">
      <h2 id={title}>
        <span class="muted">Pool</span> {pool.name}{" "}
        <small>
          {waiting.length ? `waiting: ${waiting.map(([band, n]) => `${count(n)} ${band}`).join(", ")}` : "nothing waits"}
          {objectives.length > 0 && ` · objective: ${objectives.join(", ")}`}
        </small>
      </h2>
      <div class="pool-body">
        <div class="replicas">
          {pool.replicas.map((replica) => (
            <ReplicaCard key={replica.name} replica={replica} />
          ))}
        </div>
        {pool.tenants.length > 0 && <Queues pool={pool} />}
      </div>
    </section>
  );
}

function ReplicaCard({ replica }: { replica: ReplicaView }) {
  const used = replica.in_slots.filter((slot) => slot.use !== "idle").length;
  const free = Math.max(0, replica.slots - replica.in_slots.length);
  return (
    <article class="replica" aria-label={`Replica ${replica.name}`}>
      <header>
        <h3 title={replica.base_model}>{replica.name}</h3>
        <State state={replica.state} />
        <DrainButton replica={replica} />
      </header>
      {replica.trouble && <p class="reason">{replica.trouble}</p>}
      <dl class="facts">
        <Fact name="In flight">
          <Bar limit value={replica.sequences} of={replica.capacity} label={`sequences in flight on ${replica.name}`} /> {replica.sequences} <small>of {replica.capacity}</small>
        </Fact>
        {replica.kv_tokens > 0 && (
          <Fact name="KV cache">
            <Bar limit value={replica.tokens} of={replica.kv_tokens} label={`tokens in flight on ${replica.name}`} /> {percent(replica.tokens / replica.kv_tokens)}
          </Fact>
        )}
        {replica.itl_s !== null && <Fact name="Per token">{seconds(replica.itl_s)}</Fact>}
        {replica.slots > 0 && (
          <Fact name="Slots">
            {used} <small>of {replica.slots} held, {replica.in_host} in host memory</small>
          </Fact>
        )}
      </dl>
      {replica.slots > 0 && (
        <ul class="slots" aria-label={`Slots of ${replica.name}`}>
          {replica.in_slots.map((slot) => (
            <SlotItem key={slot.adapter} slot={slot} />
          ))}
          {free > 0 && <li class="slot free">{free} free</li>}
        </ul>
      )}
      {replica.slot_drains_for && <p class="muted note">A slot is being drained for {shortAdapter(replica.slot_drains_for)}.</p>}
      {replica.outdated && <p class="muted note">Its engine runs with other settings than the fleet has; a restart of the pool gives it these.</p>}
      {replica.faults > 0 && <p class="reason">{plural(replica.faults, "adapter")} failed in this engine.</p>}
    </article>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

function SlotItem({ slot }: { slot: Slot }) {
  const facts = [slot.use as string];
  if (slot.pinned && slot.use !== "pinned") facts.push("pinned");
  if (slot.sequences > 0) facts.push(`${slot.sequences} in flight`);
  if (slot.leased_s !== null) facts.push(`for ${seconds(slot.leased_s)}`);
  return (
    <li class={`slot ${slot.use}`} title={`${slot.adapter}: ${facts.join(", ")}`}>
      <span class="name">{shortAdapter(slot.adapter)}</span>
      <span class="use">
        {slot.use === "running" ? slot.sequences : slot.use}
        {slot.pinned && slot.use !== "pinned" && " pinned"}
      </span>
    </li>
  );
}

function Queues({ pool }: { pool: PoolView }) {
  const most = Math.max(...pool.tenants.map((tenant) => tenant.queued), 1);
  return (
    <table class="queues">
      <caption>Who has work in {pool.name}</caption>
      <thead>
        <tr>
          <th scope="col">Tenant</th>
          <th scope="col">Band</th>
          <th scope="col">Waiting</th>
          <th scope="col" class="n">
            Running
          </th>
          <th scope="col" class="n">
            Slots
          </th>
        </tr>
      </thead>
      <tbody>
        {pool.tenants.map((tenant) => (
          <QueueRow key={tenant.name} tenant={tenant} most={most} />
        ))}
      </tbody>
      {pool.tenants_left_out > 0 && (
        <tfoot>
          <tr>
            <td colSpan={5}>and {plural(pool.tenants_left_out, "tenant")} more</td>
          </tr>
        </tfoot>
      )}
    </table>
  );
}

function QueueRow({ tenant, most }: { tenant: TenantView; most: number }) {
  return (
    <tr>
      <th scope="row">
        <a href={link("tenants", tenant.name)}>{tenant.name}</a>
      </th>
      <td>{tenant.band}</td>
      <td>
        <Bar value={tenant.queued} of={most} label={`requests of ${tenant.name} that wait`} /> <span class="tabular">{count(tenant.queued)}</span>
      </td>
      <td class="n">{count(tenant.tickets - tenant.queued)}</td>
      <td class="n">{tenant.slots}</td>
    </tr>
  );
}

function DrainButton({ replica }: { replica: ReplicaView }) {
  const { api } = useConsole();
  return <Act action={replica.state === "draining" ? resume(api, replica) : drain(api, replica)}>{replica.state === "draining" ? "Resume" : "Drain"}</Act>;
}

function drain(api: Api, replica: ReplicaView): Action {
  return {
    title: `Drain ${replica.name}?`,
    text: `It gets no new work; its ${plural(replica.sequences, "sequence")} in flight go on to their end. If all replicas like it are drained, requests get a 503 ${words("no_replica_ready")}; if the others are not ready, they wait.`,
    verb: `Drain ${replica.name}`,
    danger: true,
    run: () => api.act("POST", `/replicas${path(replica.name)}/drain`),
    done: `${replica.name} gets no new work.`,
  };
}

function resume(api: Api, replica: ReplicaView): Action {
  return {
    title: `Resume ${replica.name}?`,
    text: "It gets work again at once.",
    verb: `Resume ${replica.name}`,
    run: () => api.act("POST", `/replicas${path(replica.name)}/resume`),
    done: `${replica.name} gets work again.`,
  };
}
