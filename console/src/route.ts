// Which page is shown: kept in the part of the address that no server sees.

import { useEffect, useState } from "preact/hooks";

export function parts(): string[] {
  const found = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
  try {
    return found.map(decodeURIComponent);
  } catch {
    return []; // a broken link
  }
}

export function link(...to: string[]): string {
  return `#/${to.map(encodeURIComponent).join("/")}`;
}

export function useRoute(): string[] {
  const [route, setRoute] = useState(parts);
  useEffect(() => {
    const changed = (): void => setRoute(parts());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}
