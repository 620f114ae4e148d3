// What the scheduler decides, as it decides it, and what was done to the fleet.

import { useEffect, useRef, useState } from "preact/hooks";
import { query } from "../api";
import { useConsole, useLoaded } from "../context";
import { clock, count, moment, seconds, words } from "../format";
import { Empty, number, Table, Title, Trouble } from "../parts";
import { link } from "../route";
import type { SeenDecision } from "../store";
import type { EventAnswer, EventList } from "../types";

const SHOWN = 150;

export function Events() {
  return (
    <>
      <Title text="Events" />
      <Decisions />
      <Changes tenant={null} />
    </>
  );
}

function Decisions() {
  const { live } = useConsole();
  const [text, setText] = useState("");
  const [grants, setGrants] = useState(false);
  const [held, setHeld] = useState<SeenDecision[] | null>(null);
  const wanted = text.trim().toLowerCase();
  const matches = (d: SeenDecision): boolean => (grants || d.action !== "granted") && `${d.action} ${d.reason} ${d.tenant}/${d.model} ${d.request_id} ${d.replica} ${d.pool}`.toLowerCase().includes(wanted);
  const shown = (held ?? live.decisions).filter(matches).slice(0, SHOWN);
  useEffect(() => () => setHeld(null), []);
  return (
    <section aria-labelledby="decisions-title">
      <h2 id="decisions-title">
        Scheduler decisions <small>the newest first</small>
      </h2>
      <div class="filter">
        <label>
          Filter <input type="search" value={text} onInput={(event) => setText(event.currentTarget.value)} placeholder="tenant, model, reason, request id" />
        </label>
        <label class="check">
          <input type="checkbox" checked={grants} onChange={(event) => setGrants(event.currentTarget.checked)} /> with grants
        </label>
        <button aria-pressed={held !== null} onClick={() => setHeld(held ? null : live.decisions)}>
          {held ? "Go on" : "Hold"}
        </button>
      </div>
      {shown.length === 0 ? (
        <Empty>{live.decisions.length ? "Nothing but what is filtered out." : "Nothing was decided yet."}</Empty>
      ) : (
        <Table label="Scheduler decisions" log columns={["At", "Decision", "Why", "Model", "Where", number("Waited"), "Request"]}>
          {shown.map((d) => (
            <tr key={d.id}>
              <td class="tabular">{clock(d.at)}</td>
              <td>
                <span class={`action ${d.action}`}>{d.action}</span>
              </td>
              <td>{words(d.reason)}</td>
              <td class="long">
                {d.tenant}/{d.model}
              </td>
              <td>{d.replica ?? d.pool}</td>
              <td class="n">{d.waited_s >= 0.001 ? seconds(d.waited_s) : ""}</td>
              <td class="long muted">{d.request_id}</td>
            </tr>
          ))}
        </Table>
      )}
      {live.decisionsLeftOut > 0 && <p class="note muted">{count(live.decisionsLeftOut)} more came too fast to be sent, grants before others.</p>}
    </section>
  );
}

const FEW = 50;
const MOST = 1000; // that the gateway tells at once

/** What was changed, and by whom: of everything, or of one tenant. */
export function Changes({ tenant, revision = 0 }: { tenant: string | null; revision?: number }) {
  const [limit, setLimit] = useState(FEW);
  const where = `/events${query({ tenant, limit: String(limit) })}`;
  const { data, error, reload } = useLoaded((api, signal) => api.get<EventList>(where, signal), 10_000, where);
  const shown = useRef(revision);
  useEffect(() => {
    if (shown.current === revision) return;
    shown.current = revision;
    reload(); // it was changed on this page
  }, [revision]);
  return (
    <section aria-labelledby="done-title">
      <h2 id="done-title">
        {tenant === null ? "Changes" : "Events"} <small>{tenant === null ? "to tenants, adapters, rollouts, keys and replicas" : "who changed what, the newest first"}</small>
      </h2>
      {error && <Trouble text={error} retry={reload} />}
      {data && data.data.length === 0 && <Empty>Nothing was changed yet.</Empty>}
      {data && data.data.length > 0 && (
        <Table label="Changes" log columns={["When", "What", "Happened", "By"]}>
          {data.data.map((event) => (
            <tr key={event.id}>
              <td class="tabular">{moment(event.at)}</td>
              <td class="long">
                <Subject event={event} here={tenant !== null} />
              </td>
              <td class="prose">{event.text}</td>
              <td class="muted">{event.actor}</td>
            </tr>
          ))}
        </Table>
      )}
      {data && data.data.length === limit && limit < MOST && (
        <div class="buttons left">
          <button onClick={() => setLimit(Math.min(MOST, 4 * limit))}>Older ones too</button>
        </div>
      )}
    </section>
  );
}

/** What was changed; a tenant's name leads to it, but from its own page. */
function Subject({ event, here }: { event: EventAnswer; here: boolean }) {
  const [kind, name, ...more] = event.subject.split(" ");
  if (here || kind !== "tenant" || !name || more.length > 0) return <>{event.subject}</>;
  return (
    <>
      tenant <a href={link("tenants", name)}>{name}</a>
    </>
  );
}
