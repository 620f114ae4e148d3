// Numbers with units, as short as they can be read.

const DASH = "–";

export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined) return DASH;
  if (value === 0) return "0 ms";
  if (value < 0.01) return `${(1000 * value).toFixed(1)} ms`;
  if (value < 1) return `${Math.round(1000 * value)} ms`;
  if (value < 100) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return value < 172800 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86400)} d`;
}

export function rate(value: number): string {
  if (value === 0) return "0";
  return value < 10 ? value.toFixed(value < 0.1 ? 2 : 1) : count(Math.round(value));
}

export function percent(part: number): string {
  if (part === 0) return "0 %";
  return `${part < 0.1 ? (100 * part).toFixed(1) : Math.round(100 * part)} %`;
}

const GROUPED = new Intl.NumberFormat("en", { useGrouping: true });

export function count(value: number): string {
  return GROUPED.format(value).replaceAll(",", "\u202f");
}

export function bytes(value: number): string {
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024) return `${size < 10 && unit !== "B" ? size.toFixed(1) : Math.round(size)} ${unit}`;
    size /= 1024;
  }
  return `${size.toFixed(1)} TiB`;
}

/** Unix time in s, in the reader's own time zone. */
export function moment(at: number | null): string {
  if (at === null) return DASH;
  return new Date(1000 * at).toLocaleString("sv", { dateStyle: "short", timeStyle: "short" });
}

export function clock(at: number): string {
  return new Date(1000 * at).toLocaleTimeString("sv");
}

/** An engine's name of a version, without the digest of its content. */
export function shortAdapter(id: string): string {
  return id.replace(/@[0-9a-f]{8,}$/, "");
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function words(code: string): string {
  return code.replaceAll("_", " ");
}

/** An adapter with its owner; without one it is fleet.yaml's. */
export function fullName(adapter: { tenant: string | null; name: string }): string {
  return adapter.tenant === null ? adapter.name : `${adapter.tenant}/${adapter.name}`;
}
