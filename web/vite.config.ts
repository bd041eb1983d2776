// Every page is built into the gateway's package. Names carry a hash of their content, so that they can be kept for
// ever; only the pages themselves keep their names.
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { defineConfig } from "vite";
import { baseMap } from "./base-map.ts";
import { CLASSES, leanLeaflet } from "./lean-leaflet.ts";
import { vocabulary } from "./vocabulary.ts";

const here = import.meta.dirname;

const entries: Record<string, string> = {
  index: "index.html",
  public: "public.html",
  paper: "paper.html",
  login: "login.html",
  // The field page and its service worker: vite.field.config.ts
};

export default defineConfig({
  root: here,
  base: "/",
  publicDir: "files",
  plugins: [vocabulary(), baseMap(), leanLeaflet()],
  // Leaflet's module has named parts, of which the board takes a few; its other form is one piece.
  resolve: { alias: [{ find: /^leaflet$/, replacement: resolve(here, "node_modules/leaflet/dist/leaflet-src.esm.js") }] },
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
      treeshake: { manualPureFunctions: CLASSES },
      input: Object.fromEntries(
        Object.entries(entries)
          .map(([name, file]) => [name, resolve(here, file)] as const)
          .filter(([, file]) => existsSync(file)),
      ),
      output: {
        entryFileNames: "assets/[name]-[hash].js",
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
});
