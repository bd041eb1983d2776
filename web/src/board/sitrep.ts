// The situation report within the page, as it is now or was at an instant, and ready to print.

import { Refused, send } from "../common/api.ts";
import { fill, h } from "../common/dom.ts";
import { language, t } from "../common/i18n.ts";
import { explain } from "./actions.ts";

const ALLOWED = new Set(
  "section h1 h2 h3 h4 p ul ol li dl dt dd b i em strong span small br table caption thead tbody tfoot tr th td figure figcaption header main footer a svg g path polygon polyline rect circle line text title".split(
    " ",
  ),
);
const KEPT = new Set("colspan rowspan scope lang dir viewBox d points x y dx dy text-anchor dominant-baseline font-size x1 x2 y1 y2 cx cy r width height fill stroke stroke-width transform role aria-label".split(" ")); // prettier-ignore

/** The report's own document as elements of this page: known elements and attributes only, everything else as text. */
export function adopt(source: Node, into: Element): void {
  for (const child of source.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) into.append(child.textContent ?? "");
    if (!(child instanceof Element)) continue;
    const name = child.localName;
    if (name === "style" || name === "script") continue;
    if (!ALLOWED.has(name)) {
      adopt(child, into);
      continue;
    }
    // A link leads to the events behind a figure, which need the token; here the figure itself is enough.
    const element = name === "a" ? document.createElement("span") : document.createElementNS(child.namespaceURI, name);
    for (const { name: attribute, value } of child.attributes) {
      if (KEPT.has(attribute) && !/url\(|script:/i.test(value)) element.setAttribute(attribute, value);
      // The report's classes are not ours: each gets a name that nothing else on this page has.
      if (attribute === "class" && /^[\w -]+$/.test(value)) element.setAttribute("class", value.replace(/[\w-]+/g, "r-$&")); // prettier-ignore
    }
    const colour = name === "i" ? /^background:\s*(#[0-9a-f]{3,8});?$/i.exec(child.getAttribute("style") ?? "") : null;
    if (colour?.[1] !== undefined) (element as HTMLElement).style.background = colour[1];
    adopt(child, element);
    into.append(element);
  }
}

export class Sitrep {
  readonly box: HTMLDialogElement;
  private readonly body = h("div", { class: "sitrep-body" });
  private asked = 0;

  constructor(private readonly scope: () => { operation: string | null; asOf: string | null }) {
    this.box = h(
      "dialog",
      { class: "sitrep", "aria-label": t("sitrep.title") },
      h(
        "div",
        { class: "tools screen" },
        h("button", { type: "button", class: "first", onclick: () => print() }, t("sitrep.print")),
        h("button", { type: "button", onclick: () => void this.load() }, t("sitrep.again")),
        ["csv", "md"].map((form) => h("button", { type: "button", onclick: () => void this.save(form) }, t("sitrep.save", { form: form.toUpperCase() }))), // prettier-ignore
        h("button", { type: "button", onclick: () => this.box.close() }, t("detail.close")),
      ),
      this.body,
    );
    this.box.addEventListener("close", () => document.documentElement.classList.remove("reading"));
  }

  open(): void {
    document.documentElement.classList.add("reading");
    this.box.showModal();
    void this.load();
  }

  private path(form: string): string {
    const { operation, asOf } = this.scope();
    const query = new URLSearchParams({ format: form, lang: language() });
    if (operation !== null) query.set("operation", operation);
    if (asOf !== null) query.set("as_of", asOf);
    return `/v1/sitreps?${query}`;
  }

  private async load(): Promise<void> {
    const asked = ++this.asked;
    fill(this.body, t("loading"));
    try {
      const answer = await send(this.path("html"), { headers: { Accept: "text/html" }, timeout: 60_000 });
      // Its styles are ours to set here, and the page's policy would complain of each while it is parsed.
      const html = (await answer.text()).replace(/<style[^>]*>[^]*?<\/style>|\sstyle="[^"]*"/g, "");
      const parsed = new DOMParser().parseFromString(html, "text/html");
      if (asked !== this.asked) return;
      fill(this.body);
      adopt(parsed.body, this.body);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      fill(this.body, h("p", { role: "alert" }, explain(error)));
    }
  }

  private async save(form: string): Promise<void> {
    const answer = await send(this.path(form), { headers: { Accept: "*/*" }, timeout: 60_000 });
    const address = URL.createObjectURL(await answer.blob());
    h("a", { href: address, download: `sitrep.${form}` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  }
}
