// What is looked up now and then: the keys, the warnings in force, what was declared, what the marks mean.

import { call } from "../common/api.ts";
import { type Child, h } from "../common/dom.ts";
import { t, when } from "../common/i18n.ts";
import { severityMark, severityWord } from "../common/severity.ts";
import type { Operation } from "./load.ts";
import type { Store } from "./state.ts";
import { who, word } from "./words.ts";
import { warningWords } from "./warnings.ts";

function show(title: string, ...content: Child[]): void {
  const dialog = h(
    "dialog",
    { class: "look", "aria-label": title, onclose: () => dialog.remove() },
    h("h2", null, title),
    ...content,
    h("div", { class: "buttons" }, h("button", { type: "button", class: "first", onclick: () => dialog.close() }, t("detail.close"))), // prettier-ignore
  );
  document.body.append(dialog);
  dialog.showModal();
}

export function helpDialog(): void {
  const keys = ["jk", "enter", "numbers", "slash", "question", "escape", "tab", "arrows"];
  show(
    t("help.title"),
    h("dl", { class: "keys" }, keys.map((key) => h("div", null, h("dt", null, h("kbd", null, t(`key.${key}`))), h("dd", null, t(`key.${key}.does`))))), // prettier-ignore
    h("p", { class: "quiet" }, t("help.more")),
  );
}

export function warningsDialog(store: Store): void {
  const warnings = [...store.warnings.values()].sort((a, b) => b.severity - a.severity || a.expires - b.expires);
  show(t("warnings.title"), ...warnings.map((warning) => warningWords(warning)));
}

interface Declared {
  status: { declared: string; level: string | null; decree: string | null; until: string | null } | null;
  at: string;
  by: string;
  reason: string | null;
}

/** What the authorities declared for an operation, the newest first. */
export async function declaredDialog(operation: Operation): Promise<void> {
  const { statuses } = await call<{ statuses: Declared[] }>(`/v1/operations/${operation.id}/statuses`);
  show(
    t("declared.title", { operation: operation.title }),
    statuses.length === 0 && h("p", null, t("declared.none")),
    h(
      "ol",
      { class: "chain" },
      [...statuses].reverse().map(({ status, at, by, reason }) =>
        h(
          "li",
          null,
          h("time", { datetime: at }, when(at)),
          ` ${status === null ? t("declared.none") : word("declared", status.declared)}`,
          status?.level ? `, ${word("level", status.level)}` : null,
          status?.decree ? h("span", null, ` · ${t("declared.decree")} `, h("bdi", null, status.decree)) : null,
          status?.until ? ` · ${t("declared.until", { time: when(status.until) })}` : null,
          ` · ${who(by)}`,
          reason ? h("q", { class: "words" }, reason) : null,
        ),
      ),
    ),
  );
}

export function legend(): HTMLElement {
  return h(
    "details",
    { class: "legend screen" },
    h("summary", null, t("legend")),
    h(
      "ul",
      null,
      [4, 3, 2, 1].map((severity) => h("li", null, severityMark(severity), " ", severityWord(severity))),
      h("li", null, h("span", { class: "legend-site", "aria-hidden": "true" }), " ", t("legend.site")),
      h("li", null, h("span", { class: "legend-way", "aria-hidden": "true" }), " ", t("legend.way")),
      h("li", null, h("span", { class: "legend-warning", "aria-hidden": "true" }), " ", t("legend.warning")),
    ),
  );
}
