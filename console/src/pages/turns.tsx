// Whole models that take turns: where each is awake, what waits and why, what a switch takes, orders.

import { useState } from "preact/hooks";
import { path } from "../api";
import { useConsole, useLoaded } from "../context";
import type { Action, Loaded } from "../context";
import { bytes, clock, count, plural, seconds, words } from "../format";
import { Act, ACTIONS, Empty, number, State, Table, Title, Trouble, useWork } from "../parts";
import type { ModelAtHostAnswer, ModelList, TurnAnswer, WakeAnswer, WakeList } from "../types";
import { Lanes } from "./turn_lanes";

const SHOWN = 200;
const EVENTS = 60;
const HELD: Record<string, string> = {
  switching: "every host that could take it is in mid-switch",
  young: "what is awake has only just come",
  behind: "what is awake, or another model that waits, is worth more",
  draining: "a turn has ended for it, and what runs there ends first",
  nowhere: "only pinned models are awake, or it has failed at every host",
};

/** One model of a pool, with its places. */
interface Model {
  pool: string;
  name: string;
  at: ModelAtHostAnswer[];
  waiting: number;
  oldest_s: number;
  held: string;
  pinned: boolean;
}

export function Turns() {
  const loaded = useLoaded((api, signal) => api.get<ModelList>("/models", signal), 2000);
  const { data, error, reload } = loaded;
  const [text, setText] = useState("");
  const wanted = text.trim().toLowerCase();
  const models = modelsOf(data?.data ?? []);
  const pools = [...new Set(models.map((model) => model.pool))];
  return (
    <>
      <Title text="Turns">{data && models.length > 0 && <span class="muted">{plural(models.length, "whole model")}</span>}</Title>
      {error && <Trouble text={error} retry={reload} />}
      {data && models.length === 0 && <Empty>No pool of this fleet has models that take turns.</Empty>}
      {models.length > 8 && (
        <div class="filter">
          <label>
            Filter <input type="search" value={text} onInput={(event) => setText(event.currentTarget.value)} placeholder="model, host, awake, pinned" />
          </label>
        </div>
      )}
      {data && pools.map((pool) => <PoolTurns key={pool} pool={pool} models={models.filter((model) => model.pool === pool)} wanted={wanted} turns={data.turns.filter((turn) => turn.pool === pool)} loaded={loaded} />)}
    </>
  );
}

function modelsOf(all: ModelAtHostAnswer[]): Model[] {
  const found = new Map<string, Model>();
  for (const one of all) {
    const { pool, model: name, waiting, oldest_s, held, pinned } = one;
    const key = `${pool}/${name}`;
    const known = found.get(key) ?? { pool, name, at: [], waiting, oldest_s, held, pinned };
    known.at.push(one);
    found.set(key, known);
  }
  return [...found.values()].sort((a, b) => rank(a) - rank(b) || (a.name < b.name ? -1 : 1));
}

/** What somebody must see comes first: what fails, what waits, what is awake. */
function rank(model: Model): number {
  if (model.at.some((one) => ["failed", "quarantined", "unknown"].includes(one.state))) return 0;
  if (model.waiting > 0) return 1;
  return model.at.some((one) => one.state !== "on_disk") ? 2 : 3;
}

interface PoolProps {
  pool: string;
  models: Model[];
  wanted: string;
  turns: TurnAnswer[];
  loaded: Loaded<ModelList>;
}

function PoolTurns({ pool, models, wanted, turns, loaded }: PoolProps) {
  const found = models.filter((model) => `${model.name} ${model.pinned ? "pinned" : ""} ${model.at.map((one) => `${one.host} ${words(one.state)}`).join(" ")}`.includes(wanted));
  const title = `turns-${pool}`;
  return (
    <section aria-labelledby={title}>
      <h2 id={title}>
        <span class="muted">Pool</span> {pool} <small>{waits(models)}</small>
      </h2>
      {found.length === 0 && <Empty>No model is like that.</Empty>}
      {found.length > 0 && (
        <Table label={`Models of ${pool}`} columns={["Model", "At its hosts", number("Waiting"), "Why it waits", "A switch took", number("Awake"), number("Memory"), ACTIONS]}>
          {found.slice(0, SHOWN).map((model) => (
            <Row key={model.name} model={model} reload={loaded.reload} />
          ))}
        </Table>
      )}
      {found.length > SHOWN && <p class="muted note">The first {SHOWN} are shown; narrow it down.</p>}
      <Lanes models={models.flatMap((model) => model.at)} turns={turns} />
      <TurnEvents pool={pool} turns={turns} />
    </section>
  );
}

function waits(models: Model[]): string {
  const waiting = models.reduce((sum, model) => sum + model.waiting, 0);
  return waiting ? `${plural(waiting, "request waits", "requests wait")} for ${plural(models.filter((model) => model.waiting > 0).length, "model")}` : "nothing waits";
}

function Row({ model, reload }: { model: Model; reload: () => void }) {
  const order = useOrder(reload);
  const reason = model.at.find((one) => one.reason)?.reason;
  const memory = Math.max(...model.at.map((one) => one.memory_bytes));
  const awake_s = model.at.reduce((sum, one) => sum + one.awake_s, 0);
  return (
    <tr data-model={model.name}>
      <th scope="row">
        {model.name}
        {model.pinned && <small> pinned</small>}
        {reason && <div class="reason failing">{reason}</div>}
      </th>
      <td>
        <ul class="plain">
          {model.at.map((one) => (
            <li key={one.host}>
              <span class="muted">{one.host}</span> <State state={one.state} /> <small>for {seconds(one.since_s)}{one.running > 0 && `, ${count(one.running)} in flight`}</small>
            </li>
          ))}
        </ul>
      </td>
      <td class="n">
        {model.waiting > 0 ? (
          <>
            {count(model.waiting)} <small>for {seconds(model.oldest_s)}</small>
          </>
        ) : (
          <span class="muted">0</span>
        )}
      </td>
      <td class="prose">{model.held && `${words(model.held)}: ${HELD[model.held] ?? ""}`}</td>
      <td>{costs(model)}</td>
      <td class="n">{awake_s > 0 ? seconds(awake_s) : "–"}</td>
      <td class="n">{memory > 0 ? bytes(memory) : "–"}</td>
      <td>
        <div class="acts">
          <Wake model={model.name} order={order} />
          <Act action={sleep(model, order)}>Sleep</Act>
          <Act action={pin(model, order)}>{model.pinned ? "Unpin" : "Pin"}</Act>
        </div>
      </td>
    </tr>
  );
}

/** By way, as hosts measured it; where hosts differ the dearest; else from the order to the first request. */
function costs(model: Model): string {
  const dearest = new Map<string, number>();
  for (const [way, took] of model.at.flatMap((one) => Object.entries(one.took_s))) dearest.set(way, Math.max(took, dearest.get(way) ?? 0));
  if (dearest.size > 0) return [...dearest].sort((a, b) => a[1] - b[1]).map(([way, took]) => `${way} ${seconds(took)}`).join(", ");
  const known = model.at.flatMap((one) => (one.cost_s === null ? [] : [one.cost_s]));
  return known.length ? seconds(Math.max(...known)) : "not measured yet";
}

// -- orders -----------------------------------------------------------------------------------------------

type Order = (method: "POST" | "DELETE", model: string, what: string) => Promise<unknown>;

function useOrder(reload: () => void): Order {
  const { api } = useConsole();
  return (method, model, what) => api.act(method, `/models${path(model)}/${what}`).finally(reload);
}

/** Asks first what it would do, then whether it shall be done. */
function Wake({ model, order }: { model: string; order: Order }) {
  const { api, ask } = useConsole();
  const { busy, error, run } = useWork();
  const dryRun = (): void => run(() => api.act<WakeList>("POST", `/models${path(model)}/wake?dry_run=true`), (told) => ask(wake(model, told, order)));
  return (
    <>
      <button disabled={busy} onClick={dryRun}>
        Wake
      </button>
      {error && <Trouble text={error} />}
    </>
  );
}

function wake(model: string, told: WakeList, order: Order): Action {
  return {
    title: `Wake ${model}?`,
    text: "It comes before all that only wait. If it were ordered now:",
    list: told.data.map(foretold),
    verb: `Wake ${model}`,
    run: () => order("POST", model, "wake"),
    done: `${model} is to be awake.`,
  };
}

function foretold(told: WakeAnswer): string {
  const affected = Object.entries(told.affected).filter(([, n]) => n > 0);
  const theirs = affected.length ? ` (${affected.map(([what, n]) => `${count(n)} ${what}`).join(", ")})` : "";
  const where = `${told.host ? ` at ${told.host}` : ""}${told.instead_of ? ` instead of ${told.instead_of}${theirs}` : ""}`;
  return `Pool ${told.pool}${where}: ${words(told.why)}${told.wait_s ? `, about ${seconds(told.wait_s)} from now` : ""}.`;
}

function sleep(model: Model, order: Order): Action {
  const running = model.at.reduce((sum, one) => sum + one.running, 0);
  const first = running ? `It gets nothing new, and its ${plural(running, "sequence")} in flight end; then it goes to disk.` : "It goes to disk.";
  const then = model.waiting ? `${plural(model.waiting, "request waits", "requests wait")} for it: it comes again when it is their turn.` : "It comes again when requests for it do.";
  return {
    title: `Put ${model.name} to sleep?`,
    text: `${first} ${then}`,
    verb: `Put ${model.name} to sleep`,
    danger: true,
    run: () => order("POST", model.name, "sleep"),
    done: `${model.name} goes to disk.`,
  };
}

function pin(model: Model, order: Order): Action {
  if (model.pinned) {
    return {
      title: `Unpin ${model.name}?`,
      text: "It takes turns again, also where the fleet pins it.",
      verb: `Unpin ${model.name}`,
      run: () => order("DELETE", model.name, "pin"),
      done: `${model.name} takes turns again.`,
    };
  }
  return {
    title: `Pin ${model.name}?`,
    text: "It comes awake if it is not, and stays so until it is unpinned, through restarts too. The pool's other models have one place less; where that would leave them none, the gateway refuses.",
    verb: `Pin ${model.name}`,
    run: () => order("POST", model.name, "pin"),
    done: `${model.name} stays awake.`,
  };
}

// -- what has happened ------------------------------------------------------------------------------------

function TurnEvents({ pool, turns }: { pool: string; turns: TurnAnswer[] }) {
  if (turns.length === 0) return null;
  return (
    <Table label={`Turns of ${pool}`} log columns={["At", "Host", "What happened", "Why", number("Took"), "Way"]}>
      {turns.slice(0, EVENTS).map((turn) => (
        <tr key={`${turn.at} ${turn.host} ${turn.model} ${turn.what}`}>
          <td class="tabular">{clock(turn.at)}</td>
          <td>{turn.host}</td>
          <td class="prose">{happened(turn)}</td>
          <td class={turn.what === "failed" ? "prose reason failing" : "prose"}>{turn.what === "failed" ? turn.why : words(turn.why)}</td>
          <td class="n">{turn.took_s > 0 ? seconds(turn.took_s) : ""}</td>
          <td>{turn.way}</td>
        </tr>
      ))}
    </Table>
  );
}

function happened({ what, model, instead_of: goes }: TurnAnswer): string {
  if (what === "drains") return goes ? `the turn of ${goes} has ended for ${model}; what it runs ends first` : `the turn of ${model} has ended; what it runs ends first`;
  if (what === "goes_on") return `the turn of ${model} goes on`;
  if (what === "sleeps") return `${model} goes to disk`;
  const instead = goes ? ` instead of ${goes}` : "";
  return { begins: `${model} begins to come${instead}`, awake: `${model} is awake${instead}`, failed: `${model} did not come awake${instead}` }[what] ?? `${model} ${words(what)}`;
}
