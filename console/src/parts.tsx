// Small pieces that several pages are made of.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { say } from "./api";
import { useConsole } from "./context";
import type { Action } from "./context";
import { seconds, words } from "./format";
import type { Verdict } from "./types";

const MARKS: Record<Verdict, string> = { failing: "✕", slow: "▲", green: "●" };

export function VerdictMark({ verdict }: { verdict: Verdict }) {
  return (
    <span class={`verdict ${verdict}`}>
      <span aria-hidden="true">{MARKS[verdict]}</span> {verdict}
    </span>
  );
}

export function State({ state }: { state: string }) {
  return <span class={`state ${state}`}>{words(state)}</span>;
}

interface SparkProps {
  values: (number | null)[];
  limit: number;
  verdict: Verdict;
  label: string;
}

const W = 120;
const H = 26;

/** The last minutes in a line. Where nothing ended there is a gap; the dashed line is where slow begins. */
export function Spark({ values, limit, verdict, label }: SparkProps) {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return <span class="muted">–</span>;
  const top = Math.max(...known);
  const most = Math.max(top, Math.min(limit, 2 * top)) * 1.08;
  const x = (index: number): number => (index / (values.length - 1)) * (W - 4) + 2;
  const y = (value: number): number => H - 2 - (value / most) * (H - 4);
  let path = "";
  let pen = false;
  const dots: [number, number][] = [];
  values.forEach((value, index) => {
    if (value === null) return void (pen = false);
    const lonely = !pen && (values[index + 1] ?? null) === null;
    if (lonely) dots.push([x(index), y(value)]);
    else path += `${pen ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = true;
  });
  return (
    <svg class={`spark ${verdict}`} viewBox={`0 0 ${W} ${H}`} width={W} height={H} role="img" aria-label={`${label}, at most ${seconds(top)} in five minutes`}>
      {limit <= most && <line class="limit" x1="0" x2={W} y1={y(limit)} y2={y(limit)} />}
      <path d={path} />
      {dots.map(([cx, cy]) => (
        <circle cx={cx} cy={cy} r="1.4" />
      ))}
    </svg>
  );
}

/** A part of a whole; with `limit` the whole is a bound, and coming near it is shown. */
export function Bar({ value, of, label, limit }: { value: number; of: number; label: string; limit?: boolean }) {
  const part = of > 0 ? Math.min(1, value / of) : 0;
  return (
    <span class="bar" role="meter" aria-valuenow={value} aria-valuemin={0} aria-valuemax={Math.max(of, value)} aria-label={label}>
      <span class={limit && part >= 0.95 ? "full" : ""} style={{ width: `${100 * part}%` }} />
    </span>
  );
}

/** A wide table that scrolls by itself; it takes the focus, so that the arrow keys can move it. */
export function Scroll({ label, tall, children }: { label: string; tall?: boolean; children: ComponentChildren }) {
  return (
    <div class={tall ? "scroll tall" : "scroll"} tabIndex={0} role="group" aria-label={`${label}, table`}>
      {children}
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

export function Trouble({ text, retry }: { text: string; retry?: () => void }) {
  return (
    <p class="trouble" role="alert">
      {text} {retry && <button onClick={retry}>Try again</button>}
    </p>
  );
}

/** Whether somebody has moved within the console; a page that was just loaded is read from its top. */
export const reading = { begun: false };

/** The heading of a page; it has the focus when one moves there, so that a reader begins there. */
export function Title({ text, children }: { text: string; children?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    const at = document.activeElement;
    if (reading.begun && (at === document.body || at?.closest("main, nav"))) heading.current?.focus();
    reading.begun = true;
  }, [text]);
  return (
    <div class="title">
      <h1 ref={heading} tabIndex={-1}>
        {text}
      </h1>
      {children}
    </div>
  );
}

export function Act({ action, children }: { action: Action; children: ComponentChildren }) {
  const { ask } = useConsole();
  return (
    <button class={action.danger ? "danger" : ""} onClick={() => ask(action)}>
      {children}
    </button>
  );
}

/** Asks before something is done; the browser keeps the focus in it, and Escape closes it. */
export function Confirm({ action, close }: { action: Action; close: (done: string | null) => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  const run = async (): Promise<void> => {
    setBusy(true);
    setError(null);
    try {
      await action.run();
      close(action.done);
    } catch (failure) {
      setError(say(failure));
      setBusy(false);
    }
  };
  return (
    <dialog ref={dialog} aria-labelledby="confirm-title" aria-describedby="confirm-text" onClose={() => close(null)}>
      <h2 id="confirm-title">{action.title}</h2>
      <p id="confirm-text">{action.text}</p>
      {error && <Trouble text={error} />}
      <div class="buttons">
        <button onClick={() => dialog.current?.close()} autofocus>
          Cancel
        </button>
        <button class={action.danger ? "danger solid" : "solid"} disabled={busy} onClick={() => void run()}>
          {busy ? "Working…" : action.verb}
        </button>
      </div>
    </dialog>
  );
}
