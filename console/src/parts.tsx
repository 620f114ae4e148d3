// Small pieces that several pages are made of.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Refused, say } from "./api";
import { useConsole } from "./context";
import type { Action } from "./context";
import { seconds, words } from "./format";
import type { Verdict } from "./types";

/** What names look like, as an input checks them. */
export const NAME = "[a-z0-9](?!.*\\.\\.)[a-z0-9._\\-]*";
/** A tenant's name for a model: any text, without spaces or slashes at its ends; the gateway knows the finer rules. */
export const ALIAS = "[^\\s\\/](.*[^\\s\\/])?";
const MARKS: Record<Verdict, string> = { failing: "✕", slow: "▲", green: "●" };

export function VerdictMark({ verdict }: { verdict: Verdict }) {
  return (
    <span class={`verdict ${verdict}`}>
      <span aria-hidden="true">{MARKS[verdict]}</span> {verdict}
    </span>
  );
}

export function State({ state }: { state: string }) {
  return <span class={`state ${state.replaceAll(" ", "_")}`}>{words(state)}</span>;
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

/** What stands above a column: its name; of numbers, which stand at the right; or what only a reader is told. */
export type Column = string | { name: string; kind: "number" | "unseen" };
export const number = (name: string): Column => ({ name, kind: "number" });
export const ACTIONS: Column = { name: "Actions", kind: "unseen" };

interface TableProps {
  label: string;
  columns: (Column | false | null | undefined)[]; // a column that is not there is left out
  log?: boolean; // many short lines: as high as a page, with the heads in view
  foot?: ComponentChildren;
  children: ComponentChildren;
}

/** A wide table that scrolls by itself; it takes the focus, so that the arrow keys can move it. */
export function Table({ label, columns, log, foot, children }: TableProps) {
  return (
    <div class={log ? "scroll tall" : "scroll"} tabIndex={0} role="group" aria-label={`${label}, table`}>
      <table class={log ? "log" : undefined}>
        <thead>
          <tr>
            {columns.map((column) => {
              if (!column) return null;
              const { name, kind } = typeof column === "string" ? { name: column, kind: "" } : column;
              return (
                <th key={name} scope="col" class={kind === "number" ? "n" : undefined}>
                  {kind === "unseen" ? <span class="hidden">{name}</span> : name}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>{children}</tbody>
        {foot && <tfoot>{foot}</tfoot>}
      </table>
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

/** A window before the page; the browser keeps the focus in it, and Escape closes it. */
export function Dialog({ title, text, close, children }: { title: string; text?: string; close: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    dialog.current?.showModal();
  }, []);
  return (
    <dialog ref={dialog} aria-labelledby="dialog-title" aria-describedby={text ? "dialog-text" : undefined} onClose={close}>
      <h2 id="dialog-title">{title}</h2>
      {text && <p id="dialog-text">{text}</p>}
      {children}
    </dialog>
  );
}

/** Closes the dialog that it is in. */
export function Close({ children, focused }: { children: ComponentChildren; focused?: boolean }) {
  return (
    <button type="button" onClick={(event) => event.currentTarget.closest("dialog")?.close()} autofocus={focused}>
      {children}
    </button>
  );
}

/** Asks before something is done. */
export function Confirm({ action, close }: { action: Action; close: (done: string | null) => void }) {
  const { busy, error, run } = useWork();
  const [typed, setTyped] = useState("");
  const submit = (event: Event): void => {
    event.preventDefault();
    run(() => action.run(), () => close(action.done));
  };
  return (
    <Dialog title={action.title} text={action.text} close={() => close(null)}>
      {action.list && (
        <ul class="listed">
          {action.list.map((one) => (
            <li key={one}>{one}</li>
          ))}
        </ul>
      )}
      <form class="form" onSubmit={submit}>
        {action.typed && (
          <Field id="typed" label={`Type ${action.typed} to go on`}>
            <input id="typed" value={typed} onInput={(event) => setTyped(event.currentTarget.value)} autocomplete="off" spellcheck={false} autofocus />
          </Field>
        )}
        {error && <Trouble text={error} />}
        <div class="buttons">
          <Close focused={!action.typed}>Cancel</Close>
          <button class={action.danger ? "danger solid" : "solid"} disabled={busy || (action.typed !== undefined && typed.trim() !== action.typed)}>
            {busy ? "Working…" : action.verb}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

interface Met {
  busy: boolean;
  error: string | null;
  refused: Refused | null; // where it was the gateway that would not
}

interface Work extends Met {
  run<T>(work: () => Promise<T>, then: (result: T) => void): void;
  forget(): void; // what it met
}

const NOTHING_MET: Met = { busy: false, error: null, refused: null };

/** Something that is under way, and what it met. */
export function useWork(): Work {
  const [state, setState] = useState<Met>(NOTHING_MET);
  const run = <T,>(work: () => Promise<T>, then: (result: T) => void): void => {
    setState({ ...NOTHING_MET, busy: true });
    work().then(
      (result) => (setState(NOTHING_MET), then(result)),
      (failure) => setState({ busy: false, error: say(failure), refused: failure instanceof Refused ? failure : null }),
    );
  };
  return { ...state, run, forget: () => setState(NOTHING_MET) };
}

/** A labelled control of a form; `note` is read with it. */
export function Field({ id, label, note, children }: { id: string; label: string; note?: string; children: ComponentChildren }) {
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {children}
      {note && (
        <small id={`${id}-note`} class="muted">
          {note}
        </small>
      )}
    </div>
  );
}

/** The fields of a form by name, as they are filled in now. */
export function filled(form: HTMLFormElement): Record<string, string> {
  return Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, typeof value === "string" ? value.trim() : ""]));
}
