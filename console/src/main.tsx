// The console: finds out who is there, follows the live stream for operators, shows a page.

import { render } from "preact";
import { useCallback, useEffect, useMemo, useRef, useState } from "preact/hooks";
import { Api, hasProxy, Refused, say, storedKey, whoAmI } from "./api";
import { ConsoleContext } from "./context";
import type { Action } from "./context";
import { seconds } from "./format";
import { AdapterPage, Adapters } from "./pages/adapters";
import { Events } from "./pages/events";
import { Fleet } from "./pages/fleet";
import { KeysPage } from "./pages/keys";
import { ModelPage } from "./pages/model";
import { Plan } from "./pages/plan";
import { forgetCalling, Playground } from "./pages/playground";
import { OwnTenant } from "./pages/own_tenant";
import { TenantPage } from "./pages/tenant";
import { AdmitTenant, ChangeTenant } from "./pages/tenant_edit";
import { Tenants } from "./pages/tenants";
import { Turns } from "./pages/turns";
import { UsagePage } from "./pages/usage";
import { Confirm, reading } from "./parts";
import { link, useRoute } from "./route";
import { NOTHING, take } from "./store";
import type { Live } from "./store";
import type { WhoAmIAnswer } from "./types";
import { follow } from "./stream";
import "./style.css";

interface Session {
  key: string; // empty: a proxy in front of the gateway says who it is
  me: WhoAmIAnswer;
}

const AGAIN_MS = 2000;
const SAID_MS = 20_000; // what was done is told so long

function App() {
  const [session, setSession] = useState<Session | null>(null);
  const [refusal, setRefusal] = useState<string | null>(null); // null: it is not known yet who is there
  useEffect(() => {
    let timer = 0;
    const look = async (): Promise<void> => {
      try {
        const found = await signedIn();
        if (found) setSession(found);
        else setRefusal("");
      } catch (failure) {
        if (!(failure instanceof Refused)) return void (timer = window.setTimeout(() => void look(), AGAIN_MS));
        storedKey.clear();
        setRefusal(refused(failure));
      }
    };
    void look();
    return () => clearTimeout(timer);
  }, []);
  const leave = useCallback((why: string) => {
    storedKey.clear();
    forgetCalling();
    setSession(null);
    setRefusal(why);
  }, []);
  if (session) return <Inside key={session.key} session={session} leave={leave} />;
  if (refusal === null) return <main class="sign-in muted">Asking the gateway…</main>;
  return <SignIn refusal={refusal} enter={(entered) => (storedKey.set(entered.key), setSession(entered))} />;
}

/** Who is there already: by the key of before, or by what a proxy says. */
async function signedIn(): Promise<Session | null> {
  const key = storedKey.get();
  if (!key && !(await hasProxy())) return null;
  return { key, me: await whoAmI(key) };
}

function refused(error: Refused): string {
  if (error.code === "demo_key" || error.code === "unknown_user") return error.message;
  if (error.status === 403) return "This key calls models; the console needs an operator's key, or a tenant's of role adapters.";
  return error.status === 401 ? "The gateway does not take this key: it is mistyped, expired, revoked, or another gateway's." : error.message;
}

function SignIn({ refusal, enter }: { refusal: string; enter: (session: Session) => void }) {
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
      const me = await whoAmI(key);
      reading.begun = true;
      enter({ key, me });
    } catch (failure) {
      setError(failure instanceof Refused ? refused(failure) : say(failure));
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
          One of gateway.operator_keys in fleet.yaml, or made by `tenantry keys create --role operator`. A tenant's key of role adapters opens what is the tenant's. The key stays in this tab until that is closed.
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
      <p class="note">
        <a href="/docs">How to call the models</a>
      </p>
    </main>
  );
}

function Inside({ session, leave }: { session: Session; leave: (why: string) => void }) {
  const { key, me } = session;
  const [live, setLive] = useState<Live>(NOTHING);
  const [action, setAction] = useState<Action | null>(null);
  const [said, setSaid] = useState("");
  const api = useMemo(() => new Api(key), [key]);
  const leaveRefused = useCallback((error: Refused) => leave(refused(error)), [leave]);
  const isOperator = me.role === "operator";
  useEffect(() => {
    if (!isOperator) return; // a tenant does not see the fleet
    return follow(key, {
      event: (name, data) => setLive((before) => take(before, name, data, performance.now())),
      link: (state) => setLive((before) => (before.link === state ? before : { ...before, link: state })),
      refused: leaveRefused,
    });
  }, [key, isOperator]);
  useEffect(() => {
    const bad = live.models.filter((model) => model.verdict !== "green").length;
    document.title = `${live.link === "lost" ? "(no connection) " : bad ? `(${bad}) ` : ""}Tenantry console`;
  }, [live.models, live.link]);
  useEffect(() => {
    if (!said) return;
    const timer = setTimeout(() => setSaid(""), SAID_MS);
    return () => clearTimeout(timer);
  }, [said]);
  const closed = (done: string | null): void => {
    setAction(null);
    setSaid(done ?? "");
  };
  const context = useMemo(() => ({ api, me, live, ask: setAction, told: setSaid, leave: leaveRefused }), [api, me, live]);
  return (
    <ConsoleContext.Provider value={context}>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.querySelector<HTMLElement>("main h1")?.focus())}>
        Skip to the page
      </a>
      <Header live={live} session={session} leave={() => leave("")} />
      <main id="main" class={live.link === "lost" ? "stale" : ""}>
        <p class="said" role="status">
          {said}
        </p>
        <Page me={me} />
      </main>
      {action && <Confirm action={action} close={closed} />}
    </ConsoleContext.Provider>
  );
}

const OF_OPERATORS: [string, string][] = [
  ["", "Fleet"],
  ["turns", "Turns"],
  ["plan", "Plan"],
  ["adapters", "Adapters"],
  ["tenants", "Tenants"],
  ["keys", "Keys"],
  ["usage", "Usage"],
  ["playground", "Playground"],
  ["events", "Events"],
];
const OF_TENANTS: [string, string][] = [
  ["", "Models"],
  ["adapters", "Adapters"],
  ["keys", "Keys"],
  ["usage", "Usage"],
  ["playground", "Playground"],
];

function Header({ live, session, leave }: { live: Live; session: Session; leave: () => void }) {
  const [page = ""] = useRoute();
  const here = { models: "", admit: "tenants" }[page] ?? page;
  const isOperator = session.me.role === "operator";
  return (
    <header class="top">
      <a class="mark" href={link()}>
        Tenantry
      </a>
      <nav aria-label="Pages">
        {(isOperator ? OF_OPERATORS : OF_TENANTS).map(([to, name]) => (
          <a key={to} href={to ? link(to) : link()} aria-current={here === to ? "page" : undefined}>
            {name}
          </a>
        ))}
      </nav>
      {isOperator && <LinkState live={live} />}
      <span class="muted who">{[session.me.tenant, session.me.user].filter(Boolean).join(", ")}</span>
      <button onClick={leave}>{session.key ? "Forget key" : "Use a key"}</button>
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

function Page({ me }: { me: WhoAmIAnswer }) {
  const [page, one, two] = useRoute();
  const shared = page === undefined ? null : sharedPage(page, one, two);
  if (shared) return shared;
  if (me.tenant !== null && page === undefined) return <OwnTenant name={me.tenant} />;
  if (me.role !== "operator") return <NoPage />;
  if (page === undefined) return <Fleet />;
  if (page === "turns") return <Turns />;
  if (page === "plan") return <Plan />;
  if (page === "models" && one !== undefined && two !== undefined) return <ModelPage key={`${one}/${two}`} tenant={one} model={two} />;
  if (page === "tenants" && one !== undefined && two === "change") return <ChangeTenant key={one} name={one} />;
  if (page === "tenants") return one === undefined ? <Tenants /> : <TenantPage key={one} name={one} />;
  if (page === "admit") return <AdmitTenant key={one} like={one ?? ""} />;
  if (page === "events") return <Events />;
  return <NoPage />;
}

/** A page that operators and tenants have, each with what they may see. */
function sharedPage(page: string, one: string | undefined, two: string | undefined) {
  if (page === "adapters" && one !== undefined && two !== undefined) return <AdapterPage key={`${one}/${two}`} tenant={one === "-" ? null : one} name={two} />;
  if (page === "adapters") return <Adapters key={one} tenant={one ?? null} />;
  if (page === "keys") return <KeysPage />;
  if (page === "usage") return <UsagePage />;
  if (page === "playground") return <Playground left={one ?? ""} right={two ?? ""} />;
  return null;
}

function NoPage() {
  return (
    <>
      <h1>There is no such page.</h1>
      <a href={link()}>To the first page</a>
    </>
  );
}

const root = document.getElementById("app");
if (root) render(<App />, root);
