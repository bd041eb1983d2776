// The field page and its service worker are built apart from the other pages: what several pages share would come as
// files of their own, with parts that this page never uses, and at 50 kbit/s each file and each kilobyte is felt.
// `--mode page` builds the page, `--mode worker` the worker, which is one file without imports.
import { readdirSync, readFileSync } from "node:fs";
import { resolve } from "node:path";
import { defineConfig, type Plugin } from "vite";
import { fieldData } from "./field-data.ts";
import { vocabulary } from "./vocabulary.ts";
import texts from "./locales/field.id.json" with { type: "json" };

const here = import.meta.dirname;
/** The Indonesian texts stand in the page itself: it can be read before its program has come. */
function spoken(): Plugin {
  const text = (key: string): string => {
    const found = (texts as Record<string, string>)[key];
    if (found === undefined) throw new Error(`field.html names ${key}, which is not in field.id.json`);
    return found.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
  };
  return {
    name: "spoken",
    transformIndexHtml: (html) =>
      html
        .replace(/data-t-label="([^"]+)"/g, (whole, key: string) => `${whole} aria-label="${text(key)}"`)
        .replace(/data-t-hint="([^"]+)"/g, (whole, key: string) => `${whole} placeholder="${text(key)}"`)
        .replace(/( data-t="([^"]+)"[^>]*>)(?=<)/g, (whole, _tag: string, key: string) => whole + text(key))
        .replace(/>\s+</g, "><"),
  };
}

/** `virtual:own-texts`: of the Indonesian texts those that the program says, for the others stand in the page. */
function ownTexts(): Plugin {
  const folder = resolve(here, "src/field");
  const program = readdirSync(folder).map((name) => readFileSync(resolve(folder, name), "utf8")).join("");
  const said = (key: string) => program.includes(`t("${key}")`) || program.includes(`\`${key.slice(0, key.lastIndexOf(".") + 1)}${"${"}`);
  const own = Object.fromEntries(Object.entries(texts).filter(([key]) => said(key)));
  return {
    name: "own-texts",
    resolveId: (id) => (id === "virtual:own-texts" ? `\0${id}` : null),
    load: (id) => (id === "\0virtual:own-texts" ? `export default ${JSON.stringify(own)}` : null),
  };
}

/** Parts are loaded by the browser's own import(); what Vite puts around it is half a kilobyte for nothing. */
function bareImports(): Plugin {
  const helper = "\0vite/preload-helper.js";
  return {
    name: "bare-imports",
    enforce: "pre",
    load: (id) => (id === helper ? "export const __vitePreload = (load) => load()" : null),
  };
}

/** Of the colours of every page, those of the wall screen's own theme are not this page's. */
function ownColours(): Plugin {
  return {
    name: "own-colours",
    enforce: "post",
    generateBundle(_, bundle) {
      for (const file of Object.values(bundle)) {
        if (file.type !== "asset" || !file.fileName.endsWith(".css")) continue;
        file.source = String(file.source).replace(/:root\[data-theme=dark\]\{[^}]*\}/g, "");
      }
    },
  };
}

export default defineConfig(({ mode }) => {
  const worker = mode === "worker";
  const input: Record<string, string> = worker
    ? { "field-sw": resolve(here, "src/field/sw.ts") }
    : { field: resolve(here, "field.html") };
  return {
    root: here,
    base: "/",
    publicDir: false,
    plugins: [fieldData(), vocabulary(), spoken(), ownTexts(), bareImports(), ownColours()],
    build: {
      outDir: resolve(here, "../services/gateway/static"),
      emptyOutDir: false,
      target: "es2022",
      assetsInlineLimit: 0,
      modulePreload: false,
      cssCodeSplit: false,
      reportCompressedSize: false,
      rolldownOptions: {
        input,
        output: {
          // A worker's scope is its path, so it stands at the root under a name that never changes.
          entryFileNames: worker ? "[name].js" : "assets/field-[hash].js",
          chunkFileNames: "assets/field-[name]-[hash].js",
          assetFileNames: "assets/field-[name]-[hash][extname]",
          format: worker ? "iife" : "es",
        },
      },
    },
  };
});
