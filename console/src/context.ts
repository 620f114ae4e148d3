// What every page can reach: the gateway, the live snapshot, and how to ask before something is done.

import { createContext } from "preact";
import { useCallback, useContext, useEffect, useState } from "preact/hooks";
import { Refused, say } from "./api";
import type { Api } from "./api";
import { NOTHING } from "./store";
import type { Live } from "./store";
import type { WhoAmIAnswer } from "./types";

export interface Action {
  title: string;
  text: string; // what it does, for whoever must decide
  list?: string[]; // what would change
  typed?: string; // what must be typed before, since it cannot be undone
  verb: string;
  danger?: boolean;
  run(): Promise<unknown>;
  done: string; // what is said afterwards
}

export interface Console {
  api: Api;
  me: WhoAmIAnswer;
  live: Live;
  ask(action: Action): void;
  told(done: string): void; // says that something is done
  leave(refused: Refused): void;
}

export const ConsoleContext = createContext<Console>({
  api: null as unknown as Api,
  me: null as unknown as WhoAmIAnswer,
  live: NOTHING,
  ask: () => undefined,
  told: () => undefined,
  leave: () => undefined,
});

export const useConsole = (): Console => useContext(ConsoleContext);

export interface Loaded<T> {
  data: T | null;
  error: string | null;
  status: number; // of the error; 0: none, or no answer
  reload(): void;
}

/**
 * Ask once and again every so often while the page is seen; what is there stays while it fails. How often may
 * depend on what there is; 0: never again.
 */
export function useLoaded<T>(load: (api: Api, signal: AbortSignal) => Promise<T>, every_ms: number | ((data: T | null) => number), ...deps: unknown[]): Loaded<T> {
  const { api, leave } = useConsole();
  const [state, setState] = useState<{ data: T | null; error: string | null; status: number }>({ data: null, error: null, status: 0 });
  const [turn, setTurn] = useState(0);
  useEffect(() => setState({ data: null, error: null, status: 0 }), deps);
  useEffect(() => {
    const cut = new AbortController();
    let timer = 0;
    let last: T | null = null;
    const once = async (): Promise<void> => {
      try {
        const data = (last = await load(api, cut.signal));
        if (!cut.signal.aborted) setState({ data, error: null, status: 0 });
      } catch (error) {
        if (cut.signal.aborted) return;
        if (error instanceof Refused && error.isAboutCaller) return leave(error);
        setState((before) => ({ ...before, error: say(error), status: error instanceof Refused ? error.status : 0 }));
      }
      const pause_ms = typeof every_ms === "number" ? every_ms : every_ms(last);
      if (pause_ms && !cut.signal.aborted) timer = window.setTimeout(() => void once(), pause_ms);
    };
    void once();
    return () => {
      cut.abort();
      clearTimeout(timer);
    };
  }, [api, turn, ...deps]);
  return { ...state, reload: useCallback(() => setTurn((n) => n + 1), []) };
}
