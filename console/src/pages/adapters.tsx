// Every adapter, and one with its versions: rollout, where it is resident, what went wrong.

import { useState } from "preact/hooks";
import { ofTenant, path } from "../api";
import type { Api } from "../api";
import { useConsole, useLoaded } from "../context";
import { bytes, count, fullName, moment, percent, plural } from "../format";
import { Act, ACTIONS, Bar, Close, Dialog, Empty, Field, filled, number, State, Table, Title, Trouble, useWork } from "../parts";
import { link } from "../route";
import type { AdapterAnswer, AdapterList, AdapterSummary, ReplicaAnswer, ReplicaList, VersionDetail } from "../types";
import { actionsOn, isPreparing, pinnable } from "./adapter_actions";
import { NewVersion } from "./new_version";

const SHOWN = 200;
const PAGES = 10; // of a thousand: more could not be read, and can be narrowed by tenant in a terminal

async function all(api: Api, signal: AbortSignal): Promise<{ found: AdapterSummary[]; more: boolean }> {
  const found: AdapterSummary[] = [];
  let after: string | null = null;
  for (let page = 0; page < PAGES; page++) {
    const from: string = after === null ? "" : `&after=${encodeURIComponent(after)}`;
    const answer: AdapterList = await api.get<AdapterList>(`/adapters?limit=1000${from}`, signal);
    found.push(...answer.data);
    after = answer.next;
    if (after === null) break;
  }
  return { found, more: after !== null };
}

/** All adapters; `tenant` is whose are looked for first. */
export function Adapters({ tenant }: { tenant: string | null }) {
  const { data, error, reload } = useLoaded(all, 30_000);
  const [text, setText] = useState(tenant === null ? "" : `${tenant}/`);
  const [adding, setAdding] = useState(false);
  const wanted = text.trim().toLowerCase();
  const found = data?.found.filter((one) => `${fullName(one)} ${one.state} ${one.base_model} ${one.pinned ? "pinned" : ""} ${one.rollout ? "rollout" : ""} ${isBehind(one) ? one.newest_state : ""}`.toLowerCase().includes(wanted)) ?? [];
  return (
    <>
      <Title text="Adapters">{data && <span class="muted">{plural(data.found.length, "adapter")}{data.more && " and more"}</span>}</Title>
      <div class="buttons left between">
        <button onClick={() => setAdding(true)}>New adapter</button>
      </div>
      {adding && <NewVersion of={null} close={() => setAdding(false)} />}
      {error && <Trouble text={error} retry={reload} />}
      {data && data.found.length === 0 && <Empty>There are no adapters yet.</Empty>}
      {data && data.found.length > 0 && (
        <>
          <label class="filter">
            Filter <input type="search" value={text} onInput={(event) => setText(event.currentTarget.value)} placeholder="tenant, name, state, pinned, rollout" />
          </label>
          <p class="muted note" role="status">
            {wanted && `${plural(found.length, "adapter")} found. `}
            {found.length > SHOWN && `The first ${SHOWN} are shown; narrow it down.`}
          </p>
          <List adapters={found.slice(0, SHOWN)} />
        </>
      )}
    </>
  );
}

/** Whether another version answers than the newest, which is not there yet, or was refused. */
const isBehind = (one: AdapterSummary): boolean => one.newest !== one.live && one.newest_state !== one.state && one.newest_state !== "retired";

function List({ adapters }: { adapters: AdapterSummary[] }) {
  return (
    <Table label="Adapters" columns={["Adapter", "State", number("Live version"), "Rollout", "Base model", "Pinned"]}>
      {adapters.map((one) => (
        <tr key={fullName(one)}>
          <th scope="row">
            <a href={link("adapters", one.tenant ?? "-", one.name)}>{fullName(one)}</a>
          </th>
          <td>
            {one.state ? <State state={one.state} /> : "–"}
            {isBehind(one) && one.newest_state && (
              <div>
                <small>version {one.newest}:</small> <State state={one.newest_state} />
              </div>
            )}
          </td>
          <td class="n">{one.live ?? "–"}</td>
          <td>{one.rollout ? `${percent(one.rollout.weight)} to version ${one.rollout.candidate}` : ""}</td>
          <td>{one.base_model}</td>
          <td>{one.pinned ? "pinned" : ""}</td>
        </tr>
      ))}
    </Table>
  );
}

export function AdapterPage({ tenant, name }: { tenant: string | null; name: string }) {
  const where = `/adapters${path(name)}${ofTenant(tenant)}`;
  const { me } = useConsole();
  const pause_ms = (adapter: AdapterAnswer | null): number => (adapter?.versions.some((version) => isPreparing(version.state)) ? 1_000 : 5_000);
  const { data, error, status, reload } = useLoaded((api, signal) => api.get<AdapterAnswer>(where, signal), pause_ms, where);
  const isOperator = me.role === "operator";
  const replicas = useLoaded((api, signal) => (isOperator ? api.get<ReplicaList>("/replicas", signal) : Promise.resolve(null)), 5_000);
  const title = fullName({ tenant, name });
  return (
    <>
      <Title text={title}>{data?.state && <State state={data.state} />}</Title>
      {error && (status === 404 ? <Empty>There is no adapter {title}. <a href={link("adapters")}>All adapters</a></Empty> : <Trouble text={error} retry={reload} />)}
      {data && (
        <>
          <Summary adapter={data} reload={reload} />
          <Versions adapter={data} reload={reload} />
          {isOperator && <Faults adapter={data} replicas={replicas.data?.data ?? []} />}
        </>
      )}
    </>
  );
}

function Summary({ adapter, reload }: { adapter: AdapterAnswer; reload: () => void }) {
  const { api, me } = useConsole();
  const [adding, setAdding] = useState(false);
  const { rollout } = adapter;
  const can = actionsOn(api, adapter, reload);
  const own = adapter.tenant !== null;
  const retired = adapter.versions.every((version) => version.state === "retired");
  return (
    <section aria-label="Summary">
      <dl class="facts wide">
        <div>
          <dt>Base model</dt>
          <dd>{adapter.base_model}</dd>
        </div>
        <div>
          <dt>Owner</dt>
          <dd>{adapter.tenant === null ? "declared in fleet.yaml" : me.role === "operator" ? <a href={link("tenants", adapter.tenant)}>{adapter.tenant}</a> : adapter.tenant}</dd>
        </div>
        <div>
          <dt>Live version</dt>
          <dd>
            {adapter.live ?? "none"} {adapter.previous !== null && <small>a rollback goes to {adapter.previous}</small>}
          </dd>
        </div>
        <div>
          <dt>Pinned</dt>
          <dd>{adapter.pinned ? "yes: it holds a slot of every replica it may be on" : pinnable(adapter) ? "no" : "no: none of its versions can answer, so there is nothing to pin"}</dd>
        </div>
        {rollout && (
          <div>
            <dt>Rollout</dt>
            <dd>
              version {rollout.candidate} gets {percent(rollout.weight)} of the requests
              {rollout.promote_after ? `, all after ${count(rollout.promote_after)}` : ", until it is promoted"}; it is taken back where errors rise by {percent(rollout.max_error_rise)} or latency to {rollout.max_latency_ratio} times
            </dd>
          </div>
        )}
      </dl>
      <div class="buttons left">
        {own && <button onClick={() => setAdding(true)}>New version</button>}
        {adapter.pinned && <Act action={can.unpin()}>Unpin</Act>}
        {!adapter.pinned && pinnable(adapter) && <Act action={can.pin()}>Pin</Act>}
        {rollout && <Act action={can.promote(rollout.candidate)}>Promote version {rollout.candidate}</Act>}
        {(rollout || adapter.previous !== null) && <Act action={can.rollback()}>Roll back</Act>}
        {own && !retired && <Act action={can.retire()}>Retire</Act>}
        {own && adapter.live !== null && <a href={link("playground", adapter.name, ...(rollout ? [`${adapter.name}@${rollout.candidate}`] : []))}>Try it in the playground</a>}
      </div>
      {adding && <NewVersion of={adapter} close={() => (setAdding(false), reload())} />}
    </section>
  );
}

function Versions({ adapter, reload }: { adapter: AdapterAnswer; reload: () => void }) {
  const versions = [...adapter.versions].sort((a, b) => b.number - a.number);
  return (
    <section aria-labelledby="versions-title">
      <h2 id="versions-title">Versions</h2>
      <Table label="Versions" columns={[number("Version"), "State", number("Traffic"), "Resident", number("Rank"), number("Size"), "Registered", "Source", ACTIONS]}>
        {versions.map((version) => (
          <VersionRow key={version.number} adapter={adapter} version={version} reload={reload} />
        ))}
      </Table>
    </section>
  );
}

function VersionRow({ adapter, version, reload }: { adapter: AdapterAnswer; version: VersionDetail; reload: () => void }) {
  const { api } = useConsole();
  const [giving, setGiving] = useState(false);
  const can = actionsOn(api, adapter, reload);
  const idle = version.number !== adapter.live && version.number !== adapter.rollout?.candidate;
  const own = adapter.tenant !== null;
  const where = version.resident.map((r) => `${r.replica}: ${r.place}${r.pinned ? ", pinned" : ""}${r.in_flight ? `, ${r.in_flight} in flight` : ""}`);
  return (
    <tr>
      <th scope="row" class="n">
        {version.number}
      </th>
      <td>
        <State state={version.state} />
        {version.reason && <div class={`reason ${version.state === "quarantined" ? "failing" : ""}`}>{version.reason}</div>}
        {version.progress && (
          <div>
            {version.progress.total_bytes !== null && <Bar value={version.progress.done_bytes} of={version.progress.total_bytes} label={`fetched of version ${version.number}`} />}{" "}
            <small>
              {bytes(version.progress.done_bytes)}
              {version.progress.total_bytes !== null && ` of ${bytes(version.progress.total_bytes)}`}
            </small>
          </div>
        )}
      </td>
      <td class="n">{version.traffic ? percent(version.traffic) : "–"}</td>
      <td>{where.length ? where.map((text) => <div key={text}>{text}</div>) : <span class="muted">nowhere</span>}</td>
      <td class="n">{version.rank ?? "–"}</td>
      <td class="n">{version.size_bytes ? bytes(version.size_bytes) : "–"}</td>
      <td>{moment(version.created_at)}</td>
      <td class="long" title={version.digest ?? ""}>
        {version.source}
      </td>
      <td>
        <div class="acts">
          {version.state === "ready" && idle && <Act action={can.promote(version.number)}>Promote</Act>}
          {own && version.state === "ready" && version.number !== adapter.live && adapter.live !== null && <button onClick={() => setGiving(true)}>Roll out</button>}
          {version.state === "quarantined" && <Act action={can.verify(version.number)}>Try again</Act>}
          {own && idle && version.state !== "retired" && <Act action={can.retireVersion(version.number)}>Retire</Act>}
        </div>
        {giving && <RollOut adapter={adapter} version={version.number} run={can.rollout} close={() => setGiving(false)} />}
      </td>
    </tr>
  );
}

function RollOut({ adapter, version, run, close }: { adapter: AdapterAnswer; version: number; run: (version: number, weight: number) => () => Promise<unknown>; close: () => void }) {
  const { told } = useConsole();
  const work = useWork();
  const before = adapter.rollout?.candidate === version ? adapter.rollout.weight : 0.1;
  const submit = (event: SubmitEvent): void => {
    event.preventDefault();
    const part = Number(filled(event.currentTarget as HTMLFormElement)["part"]);
    work.run(run(version, part / 100), () => (told(`Version ${version} of ${fullName(adapter)} gets ${part} % of the requests.`), close()));
  };
  return (
    <Dialog title={`Roll out version ${version} of ${fullName(adapter)}`} text={`Version ${adapter.live} answers the rest. It is taken back by itself where errors or latency rise.`} close={close}>
      <form class="form" onSubmit={submit}>
        <Field id="part" label="Part of the requests, in percent">
          <input id="part" name="part" type="number" min="0.1" max="100" step="any" required defaultValue={String(Math.round(1000 * before) / 10)} />
        </Field>
        {work.error && <Trouble text={work.error} />}
        <div class="buttons">
          <Close>Cancel</Close>
          <button class="solid" disabled={work.busy}>
            Roll it out
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Faults({ adapter, replicas }: { adapter: AdapterAnswer; replicas: ReplicaAnswer[] }) {
  const name = fullName(adapter);
  const faults = replicas.flatMap((replica) => replica.faults.filter((fault) => fault.adapter.split("@")[0] === name).map((fault) => ({ ...fault, replica: replica.name })));
  return (
    <section aria-labelledby="faults-title">
      <h2 id="faults-title">Errors in engines</h2>
      {faults.length === 0 ? (
        <Empty>No engine has had trouble with it.</Empty>
      ) : (
        <ul class="plain">
          {faults.map((fault) => (
            <li key={fault.replica + fault.adapter}>
              <b>{fault.replica}</b>: {fault.kind}, {plural(fault.count, "time")}: <span class="reason">{fault.reason}</span>
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
