// What the page knows of the gateway, and how events change it. No DOM in here.

import type { DecisionAnswer, HistoryAnswer, LiveDecisions, LiveHistory, LiveSnapshot, ModelAnswer } from "./types";
import type { Link } from "./stream";

export interface SeenDecision extends DecisionAnswer {
  id: number;
  at: number; // Unix time, s
}

export interface Live {
  link: Link;
  snapshot: LiveSnapshot | null;
  models: ModelAnswer[]; // in the order they are shown
  history: LiveHistory | null;
  byModel: Map<string, HistoryAnswer>;
  decisions: SeenDecision[]; // the newest first
  decisionsLeftOut: number;
  received: number; // performance.now() of the last snapshot
}

export const NOTHING: Live = {
  link: "connecting",
  snapshot: null,
  models: [],
  history: null,
  byModel: new Map(),
  decisions: [],
  decisionsLeftOut: 0,
  received: 0,
};

const KEPT_DECISIONS = 400;
const RANK = { failing: 0, slow: 1, green: 2 };

export const keyOf = (m: { tenant: string; model: string }): string => `${m.tenant}/${m.model}`;

/**
 * The worst verdict first, at once; within one, models change places only with a new bucket of time, since
 * rows that jump every second cannot be read.
 */
function settled(before: ModelAnswer[], now: ModelAnswer[], sortAnew: boolean): ModelAnswer[] {
  if (sortAnew || before.length === 0) return now;
  const place = new Map(before.map((model, index) => [keyOf(model), index]));
  const at = (model: ModelAnswer): number => place.get(keyOf(model)) ?? before.length;
  return [...now].sort((a, b) => RANK[a.verdict] - RANK[b.verdict] || at(a) - at(b));
}

export function take(live: Live, name: string, data: unknown, received: number): Live {
  if (name === "snapshot") {
    const snapshot = data as LiveSnapshot;
    return { ...live, snapshot, received, models: settled(live.models, snapshot.models, false) };
  }
  if (name === "history") {
    const history = data as LiveHistory;
    const byModel = new Map(history.models.map((one) => [keyOf(one), one]));
    return { ...live, history, byModel, models: settled([], live.snapshot?.models ?? [], true) };
  }
  if (name === "decisions") return withDecisions(live, data as LiveDecisions);
  return live;
}

let lastId = 0;

/** After a new connection the first decisions are old ones, some of which are here already. */
function withDecisions(live: Live, news: LiveDecisions): Live {
  const at = live.snapshot?.at ?? Date.now() / 1000;
  const known = new Set(live.decisions.map(identity));
  const fresh = news.data
    .map((decision) => ({ ...decision, at: at - decision.ago_s, id: 0 }))
    .filter((decision) => !known.has(identity(decision)))
    .reverse()
    .map((decision) => ({ ...decision, id: ++lastId }))
    .reverse();
  return {
    ...live,
    decisions: [...fresh, ...live.decisions].slice(0, KEPT_DECISIONS),
    decisionsLeftOut: live.decisionsLeftOut + news.left_out,
  };
}

const identity = (d: SeenDecision): string => `${d.request_id} ${d.action} ${d.replica} ${Math.round(20 * d.at)}`;
