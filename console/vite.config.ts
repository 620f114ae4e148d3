// Builds the page into routing/console/static, and writes down of which sources.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { defineConfig } from "vite";
import type { Plugin } from "vite";

const HERE = import.meta.dirname;
const OUT = join(HERE, "..", "routing", "console", "static");
const BESIDE = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];

function files(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? files(path) : [path];
  });
}

/** sha256 over path and content of every source, by path; a test computes the same. */
function sourcesDigest(): string {
  const sources = [...BESIDE.map((name) => join(HERE, name)), ...files(join(HERE, "src"))];
  const named = sources.map((path) => [relative(HERE, path).split(sep).join("/"), path] as const);
  const hash = createHash("sha256");
  for (const [name, path] of named.sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`${name}\0`).update(readFileSync(path)).update("\0");
  }
  return hash.digest("hex");
}

function recordSources(): Plugin {
  return {
    name: "record-sources",
    closeBundle: () => writeFileSync(join(OUT, "sources.sha256"), `${sourcesDigest()}\n`),
  };
}

export default defineConfig({
  base: "/console/",
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // a data: URL would be refused by the page's content security policy
    modulePreload: { polyfill: false },
    cssCodeSplit: false,
    rollupOptions: {
      output: {
        entryFileNames: "console-[hash].js",
        chunkFileNames: "console-[hash].js",
        assetFileNames: "console-[hash][extname]",
      },
    },
  },
  plugins: [recordSources()],
});
