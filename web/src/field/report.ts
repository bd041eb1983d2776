// The report form, without what comes after it (GPS, names, map, photographs: rest.ts puts them in). What is typed is
// kept as a draft while it is typed; sending puts it into the outbox.

import { language, t } from "../common/i18n.ts";
import { keepValue, post, value, type Item, type Photo } from "./store.ts";

const PEOPLE = ["affected", "displaced", "injured", "missing", "dead"];

/** The part of the form that says where. */
export interface Where {
  value: Record<string, unknown> | null;
}

interface Draft {
  text: string;
  hazard: string | null;
  urgency: string | null;
  people: Record<string, string>;
  location: Record<string, unknown> | null;
}

export class ReportForm {
  photos: Photo[] = [];
  photosChanged: () => void = () => undefined;
  /** The operation that this phone reports to; null: by its place. */
  operation: string | null = null;
  private saving = 0;
  where: Where = namedOnly(this.field("place"));

  constructor(
    readonly form: HTMLFormElement,
    private readonly kept: () => void,
  ) {
    form.addEventListener("input", () => this.keepDraft());
    // A chosen radio is let go of by choosing it again: nobody has to say what they do not know.
    form.addEventListener("click", (event) => this.letGo(event.target as HTMLInputElement));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.submit();
    });
  }

  field(id: string): HTMLInputElement {
    return document.getElementById(id) as HTMLInputElement;
  }

  private letGo(input: HTMLInputElement): void {
    if (input.type !== "radio") return;
    if (input.dataset["was"]) input.checked = false;
    for (const other of this.form.querySelectorAll<HTMLInputElement>(`[name="${input.name}"]`)) {
      other.dataset["was"] = other.checked ? "1" : "";
    }
    this.keepDraft();
  }

  private radio(name: string): string | null {
    return this.form.querySelector<HTMLInputElement>(`[name="${name}"]:checked`)?.value ?? null;
  }

  private get draft(): Draft {
    return {
      text: this.field("text").value,
      hazard: this.radio("hazard"),
      urgency: this.radio("urgency"),
      people: Object.fromEntries(PEOPLE.map((name) => [name, this.field(`people-${name}`).value.trim()])),
      location: this.where.value,
    };
  }

  keepDraft(): void {
    clearTimeout(this.saving);
    this.saving = window.setTimeout(() => void keepValue("draft", this.draft), 300);
  }

  /** Put what was written before into the form, unless somebody was quicker. */
  async restore(): Promise<void> {
    const sender = await value<{ name: string; phone: string }>("sender");
    if (sender && !this.field("phone").value) {
      this.field("name").value = sender.name;
      this.field("phone").value = sender.phone;
    }
    const draft = await value<Draft>("draft");
    if (draft && !this.field("text").value) this.show(draft);
  }

  private show(draft: Draft): void {
    this.form.reset();
    this.field("text").value = draft.text;
    for (const input of this.form.querySelectorAll<HTMLInputElement>("[type=radio]")) {
      input.checked = draft[input.name as "hazard" | "urgency"] === input.value;
      input.dataset["was"] = input.checked ? "1" : "";
    }
    for (const name of PEOPLE) this.field(`people-${name}`).value = draft.people[name] ?? "";
    this.where.value = draft.location;
  }

  /** Let the writer mend a report that was refused. */
  again(item: Item): void {
    const { text, hazard, severity, people, location } = item.body as Record<string, any>;
    this.show({
      text: text ?? "",
      hazard: hazard ?? null,
      urgency: severity ? String(severity) : null,
      people: Object.fromEntries(PEOPLE.map((name) => [name, String(people?.[name] ?? "")])),
      location: location ?? null,
    });
    this.photos = item.photos;
    this.photosChanged();
    this.keepDraft();
    this.field("text").focus();
  }

  private async submit(): Promise<void> {
    const button = this.form.querySelector("button.big") as HTMLButtonElement;
    if (button.disabled) return;
    const draft = this.draft;
    const fault = this.field("fault");
    const bad = PEOPLE.find((name) => /\D/.test(draft.people[name] ?? ""));
    const says = draft.text.trim() || draft.hazard || this.photos.length > 0;
    fault.textContent = !says ? t("fault.empty") : bad ? t("fault.number") : "";
    if (fault.textContent) {
      const wrong = this.field(says ? `people-${bad}` : "text");
      wrong.closest("details")?.setAttribute("open", "");
      return wrong.focus();
    }
    button.disabled = true;
    try {
      const body = await this.body(draft);
      // The phone's memory may be full: the words alone are small.
      await post("report", "/v1/reports", body, { photos: this.photos }).catch(() => post("report", "/v1/reports", body));
    } catch {
      fault.textContent = t("fault.memory");
      return;
    } finally {
      button.disabled = false;
    }
    this.photos = [];
    this.photosChanged();
    this.show({ text: "", hazard: null, urgency: null, people: {}, location: null });
    clearTimeout(this.saving);
    await keepValue("draft", null);
    await this.restore();
    this.kept();
  }

  private async body(draft: Draft): Promise<Record<string, unknown>> {
    const text = sendable(draft.text).trim();
    const people = Object.entries(draft.people).filter(([, count]) => count);
    const sender = { name: sendable(this.field("name").value).trim(), phone: sendable(this.field("phone").value).trim() };
    await keepValue("sender", sender);
    return filled({
      text,
      hazard: draft.hazard,
      severity: draft.urgency && Number(draft.urgency),
      people: people.length > 0 && Object.fromEntries(people.map(([name, count]) => [name, Number(count)])),
      location: draft.location,
      // When it was seen, which may be hours before it is sent.
      observed_at: new Date().toISOString(),
      reporter: filled({ ...sender, kind: (await value("session")) ? "volunteer" : "citizen", language: language() }),
      operation: this.operation,
    });
  }
}

function namedOnly(input: HTMLInputElement): Where {
  return {
    get value() {
      const place = sendable(input.value).trim();
      return place ? { place } : null;
    },
    set value(location) {
      input.value = String(location?.["place"] ?? "");
    },
  };
}

function filled(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value));
}

/** Without the characters that the server takes from nobody: NUL, overrides of the writing direction, half characters. */
export function sendable(text: string): string {
  return text.replace(/[\0\u202d\u202e]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "");
}
