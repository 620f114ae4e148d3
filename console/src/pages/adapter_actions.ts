// What can be done with an adapter and its versions, each with the question that is asked before.

import { ofTenant, path } from "../api";
import type { Api } from "../api";
import type { Action } from "../context";
import { fullName } from "../format";
import type { AdapterAnswer } from "../types";

const PREPARING = ["registered", "fetching", "verifying"];

export const isPreparing = (state: string): boolean => PREPARING.includes(state);

/** Whether a version answers, or is on its way to; the gateway pins nothing else. */
export function pinnable(adapter: AdapterAnswer): boolean {
  return adapter.versions.some((one) => (one.state === "ready" && one.number === adapter.live) || isPreparing(one.state));
}

/** The actions on one adapter; `reload` follows each. */
export function actionsOn(api: Api, adapter: AdapterAnswer, reload: () => void) {
  const name = fullName(adapter);
  const act = (method: "POST" | "DELETE", what: string, body?: unknown) => (): Promise<unknown> => api.act(method, `/adapters${path(adapter.name)}${what}${ofTenant(adapter.tenant)}`, body).finally(reload);
  return {
    pin: (): Action => ({
      title: `Pin ${name}?`,
      text: "Its live version keeps a slot of every replica it may be on, whether it runs or not. Others have a slot less there.",
      verb: "Pin it",
      run: act("POST", "/pin"),
      done: `${name} is pinned.`,
    }),
    unpin: (): Action => ({
      title: `Unpin ${name}?`,
      text: "Its slots go to adapters that need them.",
      verb: "Unpin it",
      run: act("DELETE", "/pin"),
      done: `${name} is not pinned any more.`,
    }),
    promote: (version: number): Action => ({
      title: `Promote version ${version} of ${name}?`,
      text: `It answers every request from now on${adapter.live === null ? "" : `, instead of version ${adapter.live}`}; requests that run end on the version they began with.`,
      verb: `Promote version ${version}`,
      run: act("POST", "/promote", { version }),
      done: `Version ${version} of ${name} answers everything.`,
    }),
    rollback: (): Action => ({
      title: `Roll ${name} back?`,
      text: adapter.rollout ? `The rollout of version ${adapter.rollout.candidate} ends; version ${adapter.live} answers everything.` : `Version ${adapter.previous} answers everything again, instead of version ${adapter.live}.`,
      verb: "Roll back",
      danger: true,
      run: act("POST", "/rollback"),
      done: `${name} was rolled back.`,
    }),
    rollout: (version: number, weight: number) => act("POST", "/rollout", { version, weight }),
    verify: (version: number): Action => ({
      title: `Try version ${version} of ${name} again?`,
      text: "It is fetched, checked and tried from the beginning.",
      verb: "Try it again",
      run: act("POST", `/versions/${version}/verify`),
      done: `Version ${version} of ${name} is being tried again.`,
    }),
    retireVersion: (version: number): Action => ({
      title: `Retire version ${version} of ${name}?`,
      text: "It gets no request any more, and a rollback cannot go to it. Running requests end as they began.",
      verb: `Retire version ${version}`,
      danger: true,
      run: act("DELETE", `/versions/${version}`),
      done: `Version ${version} of ${name} is retired.`,
    }),
    retire: (): Action => ({
      title: `Retire ${name}?`,
      text: "All its versions leave the traffic: its model answers no request any more. Running requests end as they began.",
      verb: "Retire it",
      danger: true,
      run: act("DELETE", ""),
      done: `${name} is retired.`,
    }),
  };
}
