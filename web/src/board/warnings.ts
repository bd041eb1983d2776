// What a warning says, in the language of the page where it has it.

import { h } from "../common/dom.ts";
import { language, t, when } from "../common/i18n.ts";
import { severityMark, severityWord } from "../common/severity.ts";
import type { Warning } from "./state.ts";

export function warningWords(warning: Warning): HTMLElement {
  const text = warning.texts.find((each) => each.language.startsWith(language())) ?? warning.texts[0];
  return h(
    "article",
    { class: "warning-text" },
    h("h3", null, severityMark(warning.severity), h("span", { class: "unseen" }, severityWord(warning.severity)), " ", h("bdi", null, text?.headline ?? text?.event ?? t("warning"))), // prettier-ignore
    text?.description && h("p", { class: "words" }, text.description),
    text?.instruction && h("p", { class: "words" }, text.instruction),
    h("p", { class: "quiet" }, h("bdi", null, warning.sender), " · ", t("warning.until", { time: when(warning.expires) })), // prettier-ignore
  );
}
