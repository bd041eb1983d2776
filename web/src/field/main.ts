// The field page starts with its form alone, so that a bad line soon has something to write in; all else follows.

import { chosen, t, use, type Catalogue } from "../common/i18n.ts";
import own from "virtual:own-texts";
import { ReportForm } from "./report.ts";
import { ready } from "./store.ts";

/** Set the language. The page itself is written in Indonesian; of that catalogue only what this program says is here. */
async function speak(): Promise<Catalogue> {
  if (chosen() === "en") {
    try {
      const texts: Catalogue = (await import("../../locales/field.en.json")).default;
      use("en", texts);
      for (const [name, target] of [["data-t", ""], ["data-t-label", "aria-label"], ["data-t-hint", "placeholder"]]) {
        for (const element of document.querySelectorAll(`[${name}]`)) {
          const said = t(element.getAttribute(name as string) as string);
          if (target) element.setAttribute(target, said);
          else element.textContent = said;
        }
      }
      return texts;
    } catch {
      // no line, and never loaded before
    }
  }
  use("id", own);
  return own;
}

async function start(): Promise<void> {
  let sent = () => undefined as void;
  const form = new ReportForm(document.getElementById("form") as HTMLFormElement, () => sent());
  const [texts] = await Promise.all([speak(), ready()]);
  await form.restore();
  document.documentElement.dataset["ready"] = "form";
  const rest = await import("./rest.ts");
  sent = await rest.start(form, texts);
}

void start();
