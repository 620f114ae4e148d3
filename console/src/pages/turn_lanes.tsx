// Who was awake when: a lane for each model at each host that had a turn in the last minutes.

import { clock, seconds, words } from "../format";
import type { ModelAtHostAnswer, TurnAnswer } from "../types";

const SHOWN_S = 300;
const MOST = 24; // lanes

type Kind = "waking" | "awake" | "draining";

const BY_STATE: Record<string, Kind> = { waking: "waking", awake: "awake", draining: "draining" };
const BY_EVENT: Record<string, Kind> = { begins: "waking", awake: "awake", goes_on: "awake" };

interface Part {
  kind: Kind;
  from: number; // Unix time, s
  to: number;
}

interface Lane {
  host: string;
  model: string;
  parts: Part[];
}

export function Lanes({ models, turns }: { models: ModelAtHostAnswer[]; turns: TurnAnswer[] }) {
  const now = Date.now() / 1000;
  const lanes = lanesOf(models, turns, now);
  if (lanes.length === 0) return null;
  return (
    <figure class="lanes">
      <figcaption class="note muted">
        Who was awake in the last {SHOWN_S / 60} minutes <span class="lane-key waking" /> waking <span class="lane-key awake" /> awake <span class="lane-key draining" /> draining
      </figcaption>
      {lanes.slice(0, MOST).map((lane) => (
        <div class="lane" key={`${lane.host} ${lane.model}`}>
          <span class="lane-name">
            <span class="muted">{lane.host}</span> {lane.model}
          </span>
          <div class="track" role="img" aria-label={said(lane)}>
            {lane.parts.map((part) => (
              <span key={`${part.kind} ${part.from}`} class={part.kind} title={`${words(part.kind)} from ${clock(part.from)} for ${seconds(part.to - part.from)}`} style={place(part, now)} />
            ))}
          </div>
        </div>
      ))}
      {lanes.length > MOST && <p class="note muted">And {lanes.length - MOST} more.</p>}
    </figure>
  );
}

function said(lane: Lane): string {
  const last = lane.parts.slice(-3).map((part) => `${part.kind} from ${clock(part.from)} for ${seconds(part.to - part.from)}`);
  return `${lane.model} at ${lane.host}: ${last.join(", ")}`;
}

function place(part: Part, now: number): { left: string; width: string } {
  const at = (moment: number): number => Math.min(100, Math.max(0, 100 * (1 - (now - moment) / SHOWN_S)));
  return { left: `${at(part.from)}%`, width: `${Math.max(0.3, at(part.to) - at(part.from))}%` };
}

/** The lanes of what was awake of late, by host; what the events no longer tell is known by what is so now. */
function lanesOf(models: ModelAtHostAnswer[], turns: TurnAnswer[], now: number): Lane[] {
  const lanes = new Map<string, Lane>();
  const last = new Map<string, Part>(); // those that have not ended
  const begin = (host: string, model: string, kind: Kind, from: number, to: number): void => {
    const key = `${host} ${model}`;
    const lane = lanes.get(key) ?? { host, model, parts: [] };
    const part = { kind, from, to };
    lane.parts.push(part);
    lanes.set(key, lane);
    last.set(key, part);
  };
  const end = (host: string, model: string | null, at: number): void => {
    const part = last.get(`${host} ${model}`);
    if (part) part.to = at;
    last.delete(`${host} ${model}`);
  };
  for (const { at, host, model, instead_of: goes, what } of [...turns].reverse()) {
    const kind = BY_EVENT[what];
    if (what === "drains") {
      end(host, goes ?? model, at);
      begin(host, goes ?? model, "draining", at, now);
    } else {
      if (what === "begins") end(host, goes, at);
      end(host, model, at);
      if (kind) begin(host, model, kind, at, now);
    }
  }
  for (const one of models) {
    const kind = BY_STATE[one.state];
    if (kind && !last.has(`${one.host} ${one.model}`)) begin(one.host, one.model, kind, now - one.since_s, now);
    if (!kind) end(one.host, one.model, now - one.since_s);
  }
  const recent = [...lanes.values()].map((lane) => ({ ...lane, parts: lane.parts.filter((part) => part.to > now - SHOWN_S) }));
  return recent.filter((lane) => lane.parts.length > 0).sort((a, b) => (`${a.host} ${a.model}` < `${b.host} ${b.model}` ? -1 : 1));
}
