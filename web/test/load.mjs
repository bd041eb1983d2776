// Lets Node of any supported version run our TypeScript: types are taken off by the compiler that also builds.
import { readFile } from "node:fs/promises";
import { register } from "node:module";
import { transformWithOxc } from "vite";

export async function load(url, context, next) {
  if (url.endsWith(".json")) {
    return { format: "module", shortCircuit: true, source: `export default ${await readFile(new URL(url), "utf8")}` };
  }
  if (!url.endsWith(".ts")) return next(url, context);
  const { code } = await transformWithOxc(await readFile(new URL(url), "utf8"), new URL(url).pathname, {
    sourcemap: false,
  });
  return { format: "module", shortCircuit: true, source: code };
}

if (!import.meta.url.includes("?hooks")) register(`${import.meta.url}?hooks`);
