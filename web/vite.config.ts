// Every page is built into the gateway's package. Names carry a hash of their content, so that they can be kept for
// ever; only the pages themselves and the service worker keep their names.
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { defineConfig } from "vite";

const here = import.meta.dirname;

const entries: Record<string, string> = {
  index: "index.html",
  field: "field.html",
  public: "public.html",
  paper: "paper.html",
  // A service worker's scope is its path, so it stands at the root under a name that never changes.
  "field-sw": "src/field/sw.ts",
};

export default defineConfig({
  root: here,
  base: "/",
  publicDir: "files",
  build: {
    outDir: resolve(here, "../services/gateway/static"),
    emptyOutDir: true,
    target: "es2022",
    manifest: "manifest.json",
    // What is inlined as a data: address could not be kept by the browser, and the policy of the pages forbids it.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: {
      input: Object.fromEntries(
        Object.entries(entries)
          .map(([name, file]) => [name, resolve(here, file)] as const)
          .filter(([, file]) => existsSync(file)),
      ),
      output: {
        entryFileNames: (chunk: { name: string }) =>
          chunk.name === "field-sw" ? "field-sw.js" : "assets/[name]-[hash].js",
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
});
