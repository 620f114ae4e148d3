// The console: asks for a key, follows the live stream, shows a page of it.

import { render } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Api, open, Refused, say, storedKey } from "./api";
import { ConsoleContext } from "./context";
import type { Action } from "./context";
import { seconds } from "./format";
import { AdapterPage, Adapters } from "./pages/adapters";
import { Events } from "./pages/events";
import { Fleet } from "./pages/fleet";
import { ModelPage } from "./pages/model";
import { TenantPage, Tenants } from "./pages/tenants";
import { Confirm, reading } from "./parts";
import { link, useRoute } from "./route";
import { NOTHING, take } from "./store";
import type { Live } from "./store";
import { follow } from "./stream";
import "./style.css";

function App() {
  const [key, setKey] = useState(storedKey.get);
  const [refusal, setRefusal] = useState("");
  const leave = useCallback((why: string) => {
    storedKey.clear();
    setKey("");
    setRefusal(why);
  }, []);
  if (!key) return <SignIn refusal={refusal} enter={(given) => (storedKey.set(given), setRefusal(""), setKey(given))} />;
  return <Inside key={key} operatorKey={key} leave={leave} />;
}

function refused(error: Refused): string {
  if (error.code === "demo_key") return error.message;
  return error.status === 403 ? "This key is not an operator's; the console needs one." : "The gateway does not take this key: it is mistyped, expired, revoked, or another gateway's.";
}

function SignIn({ refusal, enter }: { refusal: string; enter: (key: string) => void }) {
  const [error, setError] = useState(refusal);
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Tenantry console";
    field.current?.focus();
  }, []);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const key = field.current?.value.trim() ?? "";
    if (!key) return;
    setBusy(true);
    try {
      await (await open(key, "/live")).body?.cancel();
      reading.begun = true;
      enter(key);
    } catch (failure) {
      setError(failure instanceof Refused && failure.isAboutKey ? refused(failure) : say(failure));
      setBusy(false);
      field.current?.select();
    }
  };
  return (
    <main class="sign-in">
      <h1>Tenantry console</h1>
      <form onSubmit={(event) => void submit(event)}>
        <label for="key">Operator key</label>
        <input id="key" ref={field} type="password" autocomplete="off" spellcheck={false} required aria-describedby="key-note" aria-invalid={error !== ""} />
        <p id="key-note" class="muted note">
          One of gateway.operator_keys in fleet.yaml, or made by `tenantry keys create --role operator`. It stays in this tab until that is closed.
        </p>
        {error && (
          <p class="trouble" role="alert">
            {error}
          </p>
        )}
        <button class="solid" disabled={busy}>
          {busy ? "Looking…" : "Open"}
        </button>
      </form>
    </main>
  );
}

function Inside({ operatorKey, leave }: { operatorKey: string; leave: (why: string) => void }) {
  const [live, setLive] = useState<Live>(NOTHING);
  const [action, setAction] = useState<Action | null>(null);
  const [said, setSaid] = useState("");
  const api = useMemo(() => new Api(operatorKey), [operatorKey]);
  const leaveRefused = useCallback((error: Refused) => leave(refused(error)), [leave]);
  useEffect(
    () =>
      follow(operatorKey, {
        event: (name, data) => setLive((before) => take(before, name, data, performance.now())),
        link: (state) => setLive((before) => (before.link === state ? before : { ...before, link: state })),
        refused: leaveRefused,
      }),
    [operatorKey],
  );
  useEffect(() => {
    const bad = live.models.filter((model) => model.verdict !== "green").length;
    document.title = `${live.link === "lost" ? "(no connection) " : bad ? `(${bad}) ` : ""}Tenantry console`;
  }, [live.models, live.link]);
  const closed = (done: string | null): void => {
    setAction(null);
    setSaid(done ?? "");
  };
  const context = useMemo(() => ({ api, live, ask: setAction, leave: leaveRefused }), [api, live]);
  return (
    <ConsoleContext.Provider value={context}>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.querySelector<HTMLElement>("main h1")?.focus())}>
        Skip to the page
      </a>
      <Header live={live} leave={() => leave("")} />
      <main id="main" class={live.link === "lost" ? "stale" : ""}>
        <p class="said" role="status">
          {said}
        </p>
        <Page />
      </main>
      {action && <Confirm action={action} close={closed} />}
    </ConsoleContext.Provider>
  );
}

const PAGES: [string, string][] = [
  ["", "Fleet"],
  ["adapters", "Adapters"],
  ["tenants", "Tenants"],
  ["events", "Events"],
];

function Header({ live, leave }: { live: Live; leave: () => void }) {
  const [page = ""] = useRoute();
  const here = page === "models" ? "" : page;
  return (
    <header class="top">
      <a class="mark" href={link()}>
        Tenantry
      </a>
      <nav aria-label="Pages">
        {PAGES.map(([to, name]) => (
          <a key={to} href={to ? link(to) : link()} aria-current={here === to ? "page" : undefined}>
            {name}
          </a>
        ))}
      </nav>
      <LinkState live={live} />
      <button onClick={leave}>Forget key</button>
    </header>
  );
}

function LinkState({ live }: { live: Live }) {
  const [, setNow] = useState(0);
  useEffect(() => {
    if (live.link !== "lost") return;
    const timer = setInterval(() => setNow((n) => n + 1), 1000);
    return () => clearInterval(timer);
  }, [live.link]);
  const age = live.received ? `; what you see is ${seconds(Math.round((performance.now() - live.received) / 1000) || 1)} old` : "";
  const texts = { connecting: "Connecting…", live: "Live", lost: "No connection, trying again" };
  return (
    <span class={`link ${live.link}`}>
      <span role="status">{texts[live.link]}</span>
      {live.link === "lost" && <span>{age}</span>}
    </span>
  );
}

function Page() {
  const [page, one, two] = useRoute();
  if (page === undefined) return <Fleet />;
  if (page === "models" && one !== undefined && two !== undefined) return <ModelPage key={`${one}/${two}`} tenant={one} model={two} />;
  if (page === "adapters" && one !== undefined && two !== undefined) return <AdapterPage key={`${one}/${two}`} tenant={one === "-" ? null : one} name={two} />;
  if (page === "adapters") return <Adapters />;
  if (page === "tenants") return one === undefined ? <Tenants /> : <TenantPage key={one} name={one} />;
  if (page === "events") return <Events />;
  return (
    <>
      <h1>There is no such page.</h1>
      <a href={link()}>To the fleet</a>
    </>
  );
}

const root = document.getElementById("app");
if (root) render(<App />, root);
