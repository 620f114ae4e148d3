// How the page asks the gateway: the operator's key goes in a header, never into an address.

const BASE = "/admin/v1";
const KEPT = "tenantry.operator-key";

export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
  ) {
    super(message);
  }

  /** Whether the key itself is the trouble. */
  get isAboutKey(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

/** The key, until the tab is closed. */
export const storedKey = {
  get: (): string => sessionStorage.getItem(KEPT) ?? "",
  set: (key: string): void => sessionStorage.setItem(KEPT, key),
  clear: (): void => sessionStorage.removeItem(KEPT),
};

export async function open(key: string, path: string, init: RequestInit = {}): Promise<Response> {
  // What no header can carry is nobody's key; fetch would throw.
  if (!/^[\x21-\x7e]+$/.test(key)) throw new Refused("A key has no spaces and no special characters.", 401, "invalid_api_key");
  const answer = await fetch(BASE + path, {
    ...init,
    headers: { ...init.headers, authorization: `Bearer ${key}` },
    cache: "no-store",
    credentials: "omit",
  });
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

async function refusal(answer: Response): Promise<Refused> {
  const body = (await answer.json().catch(() => null)) as { error?: { message?: string; code?: string } } | null;
  const message = body?.error?.message ?? `The gateway answered with status ${answer.status}.`;
  return new Refused(message, answer.status, body?.error?.code ?? "");
}

export class Api {
  constructor(readonly key: string) {}

  async get<T>(path: string, signal?: AbortSignal): Promise<T> {
    return (await open(this.key, path, { signal: signal ?? null })).json() as Promise<T>;
  }

  async act<T>(method: "POST" | "DELETE", path: string, body?: unknown): Promise<T> {
    const init: RequestInit = { method };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { "content-type": "application/json" };
    }
    return (await open(this.key, path, init)).json() as Promise<T>;
  }
}

export function say(error: unknown): string {
  if (error instanceof Refused) return error.message;
  return "The gateway does not answer.";
}

export function path(...parts: string[]): string {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

export function ofTenant(tenant: string | null): string {
  return tenant === null ? "" : `?tenant=${encodeURIComponent(tenant)}`;
}
