// What an officer does: each with a reason, sent once, refused kindly when somebody else decided meanwhile, and taken
// back where the interface knows how.

import { call, newKey, Refused } from "../common/api.ts";
import { fill, h, type Child } from "../common/dom.ts";
import { known, t, when } from "../common/i18n.ts";
import { who, word } from "./words.ts";

export interface Edit {
  title: string;
  /** What it means, in a sentence. */
  says?: string;
  fields?: Child[];
  submit: string;
  /** Reasons that are common, as suggestions. */
  reasons?: string[];
  /** Do it; the key makes it once, however often it is sent. */
  run(reason: string, key: string): Promise<void>;
  /** Look again after somebody else decided. */
  refresh?(): void;
}

/** Ask for the reason of an edit and do it. */
export function ask(edit: Edit): void {
  const key = newKey();
  const opener = document.activeElement?.getAttribute("data-keep") ?? null;
  const reason = h("textarea", {
    name: "reason", rows: 2, required: true, maxlength: 1000, "aria-describedby": "edit-said",
  }); // prettier-ignore
  const said = h("div", { id: "edit-said", class: "said", role: "alert" });
  const submit = h("button", { class: "first", type: "submit" }, edit.submit);
  const close = (): void => dialog.close();
  const form = h(
    "form",
    {
      method: "dialog",
      onsubmit: (event) => {
        event.preventDefault();
        void go();
      },
    },
    h("h2", null, edit.title),
    edit.says !== undefined && h("p", null, edit.says),
    edit.fields ?? [],
    h("label", null, h("span", null, t("edit.reason")), reason),
    edit.reasons !== undefined &&
      h(
        "div",
        { class: "presets" },
        edit.reasons.map((preset) =>
          h("button", { type: "button", onclick: () => { reason.value = preset; reason.focus(); } }, preset), // prettier-ignore
        ),
      ),
    said,
    h(
      "div",
      { class: "buttons" },
      submit,
      h("button", { type: "button", onclick: close }, t("edit.cancel")),
    ),
  );
  const dialog = h("dialog", { class: "edit", "aria-label": edit.title, onclose: () => closed() }, form);

  function closed(): void {
    // Closed only to take a point from the map: it comes back.
    if (dialog.returnValue === "picking") {
      dialog.returnValue = "";
      return;
    }
    dialog.remove();
    // The button that opened it was drawn anew meanwhile: the focus goes to where it stands now.
    if (opener !== null && document.activeElement === document.body) {
      document.querySelector<HTMLElement>(`[data-keep="${CSS.escape(opener)}"]`)?.focus();
    }
  }

  async function go(): Promise<void> {
    const words = reason.value.trim();
    if (words === "") {
      fill(said, t("edit.reason_missing"));
      reason.focus();
      return;
    }
    submit.disabled = true;
    fill(said, t("edit.sending"));
    try {
      await edit.run(words, key);
      dialog.close();
    } catch (error) {
      submit.disabled = false;
      if (!(error instanceof Refused)) throw error;
      fill(said, refusal(error, edit.refresh === undefined ? null : () => { dialog.close(); edit.refresh?.(); })); // prettier-ignore
    }
  }

  document.body.append(dialog);
  dialog.showModal();
  (form.querySelector<HTMLElement>("input, select, textarea") ?? reason).focus();
}

/** A refusal in plain words; a stale edit names who decided what, and offers to look again. */
export function refusal(error: Refused, again: (() => void) | null = null): HTMLElement {
  if (error.code === "stale") {
    const changes = (error.extra["changes"] ?? []) as { by?: string; what: string; reason?: string; time: string }[];
    return h(
      "div",
      null,
      h("p", null, h("strong", null, t("stale.title"))),
      h(
        "ul",
        null,
        changes.map((change) =>
          h("li", null, `${when(change.time)}: ${who(change.by)}: ${word("step", change.what)}`, change.reason ? h("q", { class: "words" }, change.reason) : null), // prettier-ignore
        ),
      ),
      h("p", null, t("stale.advice")),
      again !== null && h("button", { type: "button", class: "first", onclick: again }, t("stale.again")),
    );
  }
  return h("p", null, explain(error));
}

export function explain(error: Refused): string {
  const key = `refused.${error.code}`;
  if (error.status === 0) return t("refused.unreachable");
  if (error.status === 401) return t("refused.unauthenticated");
  if (error.status >= 500) return t("refused.server");
  return known(key) ? `${t(key)} (${error.message})` : error.message;
}

/** Send an edit: with its key and with the version that it was made on. */
export function edit<T>(path: string, body: unknown, key: string, version?: number, method = "POST"): Promise<T> {
  const headers: Record<string, string> = version === undefined ? {} : { "If-Match": `"${version}"` };
  return call<T>(path, { method, body, key, headers });
}

/** What was done, in the corner of the page, until it is put away; with a way back where there is one. */
export class Done {
  readonly box = h("div", { class: "done screen", role: "status", "aria-live": "polite" });
  private readonly most = 4;

  add(words: string, undo: { label: string; run(reason: string, key: string): Promise<void> } | null): void {
    const note = h("div", { class: "note" }, h("span", null, words));
    if (undo !== null) {
      const key = newKey();
      const button = h("button", { type: "button" }, undo.label);
      button.addEventListener("click", () => {
        button.disabled = true;
        undo.run(t("undo.reason", { what: words }), key).then(
          () => note.remove(),
          (error: unknown) => {
            button.disabled = false;
            if (!(error instanceof Refused)) throw error;
            note.append(refusal(error));
          },
        );
      });
      note.append(button);
    }
    note.append(h("button", { type: "button", class: "close", "aria-label": t("done.close"), onclick: () => note.remove() }, "×")); // prettier-ignore
    this.box.prepend(note);
    while (this.box.childElementCount > this.most) this.box.lastElementChild?.remove();
  }
}
