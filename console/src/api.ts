// How the page asks the gateway: a key goes in a header, never into an address. Without one, a proxy in front
// of the gateway says who asks.

import type { WhoAmIAnswer } from "./types";

const BASE = "/admin/v1";
const KEPT = "tenantry.key";
// What no page of another origin can send without being asked first; the gateway wants it of who has no key.
const OURS = { "x-tenantry-console": "1" };

export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly param: string | null = null, // the field that is wrong
  ) {
    super(message);
  }

  /** Whether the caller itself is the trouble: nothing else will be answered either. */
  get isAboutCaller(): boolean {
    return this.status === 401 || this.code === "demo_key" || this.code === "unknown_user";
  }
}

/** The key, until the tab is closed. */
export const storedKey = {
  get: (): string => sessionStorage.getItem(KEPT) ?? "",
  set: (key: string): void => sessionStorage.setItem(KEPT, key),
  clear: (): void => sessionStorage.removeItem(KEPT),
};

/** The headers that say who asks. Throws where no header can carry the key: it is nobody's. */
export function headersOf(key: string): Record<string, string> {
  if (key === "") return OURS;
  if (!/^[\x21-\x7e]+$/.test(key)) throw new Refused("A key has no spaces and no special characters.", 401, "invalid_api_key");
  return { authorization: `Bearer ${key}` };
}

export async function open(key: string, path: string, init: RequestInit = {}): Promise<Response> {
  const headers = { ...(init.headers as Record<string, string> | undefined), ...headersOf(key) };
  const answer = await fetch(BASE + path, { ...init, headers, cache: "no-store", credentials: "same-origin" });
  if (!answer.ok) throw refusal(answer.status, await answer.text().catch(() => ""));
  return answer;
}

/** The gateway's error, from the body of an answer. */
export function refusal(status: number, body: string): Refused {
  let error: { message?: string; code?: string; param?: string | null } | undefined;
  try {
    error = (JSON.parse(body) as { error?: typeof error }).error;
  } catch {
    // a proxy in between answers with something else
  }
  return new Refused(error?.message ?? `The gateway answered with status ${status}.`, status, error?.code ?? "", error?.param ?? null);
}

export async function whoAmI(key: string): Promise<WhoAmIAnswer> {
  return (await open(key, "/whoami")).json() as Promise<WhoAmIAnswer>;
}

/** Whether a proxy in front of the gateway signs users in. */
export async function hasProxy(): Promise<boolean> {
  const answer = await fetch("/console/sign-in.json", { cache: "no-store", credentials: "same-origin" });
  return answer.ok && ((await answer.json()) as { by_proxy: boolean }).by_proxy;
}

export class Api {
  constructor(readonly key: string) {}

  async get<T>(path: string, signal?: AbortSignal): Promise<T> {
    return (await open(this.key, path, { signal: signal ?? null })).json() as Promise<T>;
  }

  async act<T>(method: "POST" | "PUT" | "PATCH" | "DELETE", path: string, body?: unknown): Promise<T> {
    const init: RequestInit = { method };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { "content-type": "application/json" };
    }
    return (await open(this.key, path, init)).json() as Promise<T>;
  }

  /** Send a file and say how far it is, which fetch cannot. */
  upload<T>(path: string, file: Blob, type: string, progress: (sent: number) => void, signal: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", BASE + path);
      for (const [name, value] of Object.entries({ ...headersOf(this.key), "content-type": type })) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => progress(event.loaded);
      request.onload = () => (request.status < 300 ? resolve(JSON.parse(request.responseText) as T) : reject(refusal(request.status, request.responseText)));
      request.onerror = () => reject(new Error("no answer"));
      request.onabort = () => reject(new Refused("The upload was stopped.", 0, "stopped"));
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send(file);
    });
  }

  /** Save an answer as a file. */
  async save(path: string, name: string): Promise<void> {
    const url = URL.createObjectURL(await (await open(this.key, path)).blob());
    const anchor = document.createElement("a");
    anchor.href = url;
    anchor.download = name;
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}

export function say(error: unknown): string {
  if (error instanceof Refused) return error.message;
  return "The gateway does not answer.";
}

export function path(...parts: string[]): string {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

export function query(fields: Record<string, string | null | undefined>): string {
  const given = Object.entries(fields).filter((field): field is [string, string] => Boolean(field[1]));
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export function ofTenant(tenant: string | null): string {
  return query({ tenant });
}
