// Every adapter, and one with its versions: rollout, where it is resident, what went wrong.

import { useState } from "preact/hooks";
import { ofTenant, path } from "../api";
import type { Api } from "../api";
import { useConsole, useLoaded } from "../context";
import type { Action } from "../context";
import { bytes, count, moment, percent, plural } from "../format";
import { Act, Empty, Scroll, State, Title, Trouble } from "../parts";
import { link } from "../route";
import type { AdapterAnswer, AdapterList, AdapterSummary, ReplicaAnswer, ReplicaList, VersionDetail } from "../types";

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

const fullName = (adapter: { tenant: string | null; name: string }): string => (adapter.tenant === null ? adapter.name : `${adapter.tenant}/${adapter.name}`);

export function Adapters() {
  const { data, error, reload } = useLoaded(all, 30_000);
  const [text, setText] = useState("");
  const wanted = text.trim().toLowerCase();
  const found = data?.found.filter((one) => `${fullName(one)} ${one.state} ${one.base_model} ${one.pinned ? "pinned" : ""} ${one.rollout ? "rollout" : ""}`.toLowerCase().includes(wanted)) ?? [];
  return (
    <>
      <Title text="Adapters">{data && <span class="muted">{plural(data.found.length, "adapter")}{data.more && " and more"}</span>}</Title>
      {error && <Trouble text={error} retry={reload} />}
      {data && data.found.length === 0 && <Empty>There are no adapters yet. `tenantry adapters add` registers one.</Empty>}
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

function List({ adapters }: { adapters: AdapterSummary[] }) {
  return (
    <Scroll label="Adapters">
      <table>
        <thead>
          <tr>
            <th scope="col">Adapter</th>
            <th scope="col">State</th>
            <th scope="col" class="n">
              Live version
            </th>
            <th scope="col">Rollout</th>
            <th scope="col">Base model</th>
            <th scope="col">Pinned</th>
          </tr>
        </thead>
        <tbody>
          {adapters.map((one) => (
            <tr key={fullName(one)}>
              <th scope="row">
                <a href={link("adapters", one.tenant ?? "-", one.name)}>{fullName(one)}</a>
              </th>
              <td>{one.state ? <State state={one.state} /> : "–"}</td>
              <td class="n">{one.live ?? "–"}</td>
              <td>{one.rollout ? `${percent(one.rollout.weight)} to version ${one.rollout.candidate}` : ""}</td>
              <td>{one.base_model}</td>
              <td>{one.pinned ? "pinned" : ""}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

export function AdapterPage({ tenant, name }: { tenant: string | null; name: string }) {
  const where = `/adapters${path(name)}${ofTenant(tenant)}`;
  const { data, error, status, reload } = useLoaded((api, signal) => api.get<AdapterAnswer>(where, signal), 5_000, where);
  const replicas = useLoaded((api, signal) => api.get<ReplicaList>("/replicas", signal), 5_000);
  const title = fullName({ tenant, name });
  return (
    <>
      <Title text={title}>{data?.state && <State state={data.state} />}</Title>
      {error && (status === 404 ? <Empty>There is no adapter {title}. <a href={link("adapters")}>All adapters</a></Empty> : <Trouble text={error} retry={reload} />)}
      {data && (
        <>
          <Summary adapter={data} reload={reload} />
          <Versions adapter={data} reload={reload} />
          <Faults adapter={data} replicas={replicas.data?.data ?? []} />
        </>
      )}
    </>
  );
}

function Summary({ adapter, reload }: { adapter: AdapterAnswer; reload: () => void }) {
  const { api } = useConsole();
  const { rollout } = adapter;
  return (
    <section aria-label="Summary">
      <dl class="facts wide">
        <div>
          <dt>Base model</dt>
          <dd>{adapter.base_model}</dd>
        </div>
        <div>
          <dt>Owner</dt>
          <dd>{adapter.tenant ? <a href={link("tenants", adapter.tenant)}>{adapter.tenant}</a> : "declared in fleet.yaml"}</dd>
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
        {adapter.pinned && <Act action={unpin(api, adapter, reload)}>Unpin</Act>}
        {!adapter.pinned && pinnable(adapter) && <Act action={pin(api, adapter, reload)}>Pin</Act>}
        {rollout && <Act action={promote(api, adapter, rollout.candidate, reload)}>Promote version {rollout.candidate}</Act>}
        {(rollout || adapter.previous !== null) && <Act action={rollback(api, adapter, reload)}>Roll back</Act>}
      </div>
    </section>
  );
}

function Versions({ adapter, reload }: { adapter: AdapterAnswer; reload: () => void }) {
  const versions = [...adapter.versions].sort((a, b) => b.number - a.number);
  return (
    <section aria-labelledby="versions-title">
      <h2 id="versions-title">Versions</h2>
      <Scroll label="Versions">
        <table>
          <thead>
            <tr>
              <th scope="col" class="n">
                Version
              </th>
              <th scope="col">State</th>
              <th scope="col" class="n">
                Traffic
              </th>
              <th scope="col">Resident</th>
              <th scope="col" class="n">
                Rank
              </th>
              <th scope="col" class="n">
                Size
              </th>
              <th scope="col">Registered</th>
              <th scope="col">Source</th>
              <th scope="col">
                <span class="hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {versions.map((version) => (
              <VersionRow key={version.number} adapter={adapter} version={version} reload={reload} />
            ))}
          </tbody>
        </table>
      </Scroll>
    </section>
  );
}

function VersionRow({ adapter, version, reload }: { adapter: AdapterAnswer; version: VersionDetail; reload: () => void }) {
  const { api } = useConsole();
  const may = version.state === "ready" && version.number !== adapter.live && version.number !== adapter.rollout?.candidate;
  const where = version.resident.map((r) => `${r.replica}: ${r.place}${r.pinned ? ", pinned" : ""}${r.in_flight ? `, ${r.in_flight} in flight` : ""}`);
  return (
    <tr>
      <th scope="row" class="n">
        {version.number}
      </th>
      <td>
        <State state={version.state} />
        {version.reason && <div class="reason">{version.reason}</div>}
      </td>
      <td class="n">{version.traffic ? percent(version.traffic) : "–"}</td>
      <td>{where.length ? where.map((text) => <div key={text}>{text}</div>) : <span class="muted">nowhere</span>}</td>
      <td class="n">{version.rank ?? "–"}</td>
      <td class="n">{version.size_bytes ? bytes(version.size_bytes) : "–"}</td>
      <td>{moment(version.created_at)}</td>
      <td class="long" title={version.digest ?? ""}>
        {version.source}
      </td>
      <td>{may && <Act action={promote(api, adapter, version.number, reload)}>Promote</Act>}</td>
    </tr>
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

// -- what can be done ---------------------------------------------------------------------------------------

function after<T>(reload: () => void, work: Promise<T>): Promise<T> {
  return work.finally(reload);
}

function at(adapter: AdapterAnswer, what: string): string {
  return `/adapters${path(adapter.name)}/${what}${ofTenant(adapter.tenant)}`;
}

/** Whether a version answers, or is on its way to; the gateway pins nothing else. */
function pinnable(adapter: AdapterAnswer): boolean {
  return adapter.versions.some((one) => (one.state === "ready" && one.number === adapter.live) || ["registered", "fetching", "verifying"].includes(one.state));
}

function pin(api: Api, adapter: AdapterAnswer, reload: () => void): Action {
  return {
    title: `Pin ${fullName(adapter)}?`,
    text: "Its live version keeps a slot of every replica it may be on, whether it runs or not. Others have a slot less there.",
    verb: "Pin it",
    run: () => after(reload, api.act("POST", at(adapter, "pin"))),
    done: `${fullName(adapter)} is pinned.`,
  };
}

function unpin(api: Api, adapter: AdapterAnswer, reload: () => void): Action {
  return {
    title: `Unpin ${fullName(adapter)}?`,
    text: "Its slots go to adapters that need them.",
    verb: "Unpin it",
    run: () => after(reload, api.act("DELETE", at(adapter, "pin"))),
    done: `${fullName(adapter)} is not pinned any more.`,
  };
}

function promote(api: Api, adapter: AdapterAnswer, version: number, reload: () => void): Action {
  return {
    title: `Promote version ${version} of ${fullName(adapter)}?`,
    text: `It answers every request from now on${adapter.live === null ? "" : `, instead of version ${adapter.live}`}; requests that run end on the version they began with.`,
    verb: `Promote version ${version}`,
    run: () => after(reload, api.act("POST", at(adapter, "promote"), { version })),
    done: `Version ${version} of ${fullName(adapter)} answers everything.`,
  };
}

function rollback(api: Api, adapter: AdapterAnswer, reload: () => void): Action {
  const { rollout } = adapter;
  return {
    title: `Roll ${fullName(adapter)} back?`,
    text: rollout ? `The rollout of version ${rollout.candidate} ends; version ${adapter.live} answers everything.` : `Version ${adapter.previous} answers everything again, instead of version ${adapter.live}.`,
    verb: "Roll back",
    danger: true,
    run: () => after(reload, api.act("POST", at(adapter, "rollback"))),
    done: `${fullName(adapter)} was rolled back.`,
  };
}
