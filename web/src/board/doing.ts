// The officer's actions, one function each: what is asked for, what is sent, and how it is taken back.

import { call } from "../common/api.ts";
import { type Child, fill, h } from "../common/dom.ts";
import { t, when } from "../common/i18n.ts";
import { severityWord } from "../common/severity.ts";
import { ask, edit } from "./actions.ts";
import type { Desk } from "./desk.ts";
import type { Detail, Doing, Whole } from "./detail.ts";
import { all, type Report } from "./load.ts";
import type { Incident, Need } from "./state.ts";
import { areaCodes, hazard, needWords, quantity, thing, things, what, word } from "./words.ts";

type Answer = { properties: Whole };

function options(pairs: [string, string][], chosen?: string): HTMLOptionElement[] {
  return pairs.map(([value, label]) => h("option", { value, selected: value === chosen }, label));
}

function labelled(label: string, field: HTMLElement, hint?: string): HTMLElement {
  return h("label", null, h("span", null, label), field, hint !== undefined && h("small", null, hint));
}

function presets(name: string): string[] {
  return t(`presets.${name}`).split("|");
}

/** Kilometres between two points, near enough to sort by. */
export function km(a: { lon: number; lat: number }, b: { lon: number; lat: number }): number {
  const x = (a.lon - b.lon) * Math.cos((((a.lat + b.lat) / 2) * Math.PI) / 180);
  return Math.hypot(x, a.lat - b.lat) * 111.2;
}

export class Actions implements Doing {
  detail: Detail | null = null;

  constructor(private readonly desk: Desk) {}

  private readonly again = (): void => this.desk.refresh();

  private took(answer: Answer): void {
    this.detail?.take(answer.properties);
  }

  verify(whole: Whole, fact: string | null): void {
    const before = fact === null ? whole.evidence : (whole.facts[fact]?.evidence ?? "reported");
    const evidence = h("select", null, options(["field_checked", "official", "corroborated", "reported"].map((e) => [e, word("evidence", e)]))); // prettier-ignore
    const found = fact === null || fact === "hazard" ? null : h("input", { type: "number", min: 0, step: 1, inputmode: "numeric" }); // prettier-ignore
    const path = `/v1/incidents/${whole.id}/verify`;
    const about = fact === null ? {} : { fact };
    ask({
      title: fact === null ? t("verify.title") : t("verify.title_fact", { fact: word("fact", fact) }),
      says: t("verify.says"),
      fields: [
        labelled(t("verify.evidence"), evidence),
        found !== null && labelled(t("verify.value"), found, t("verify.value_hint")),
      ],
      submit: t("do.verify"),
      reasons: presets("verify"),
      refresh: this.again,
      run: async (reason, key) => {
        const value = found === null || found.value === "" ? {} : { value: Number(found.value) };
        const body = { evidence: evidence.value, ...about, ...value, reason };
        this.took(await edit<Answer>(path, body, key, whole.version));
        this.desk.done.add(t("done.verified", { title: whole.title }), {
          label: t("undo.evidence", { evidence: word("evidence", before) }),
          run: async (why, again) => {
            this.took(await edit<Answer>(path, { evidence: before, ...about, reason: why }, again));
          },
        });
      },
    });
  }

  merge(whole: Whole): void {
    const here = this.desk.store.incidents.get(whole.id);
    const candidates = this.near(here, (incident) => incident.id !== whole.id && incident.operation === whole.operation);
    const select = h("select", { size: 6, required: true });
    const list = (wanted: string): void => {
      const words = wanted.toLowerCase();
      fill(
        select,
        candidates
          .filter(({ incident }) => `${incident.title} ${incident.place ?? ""}`.toLowerCase().includes(words))
          .slice(0, 40)
          .map(({ incident, far }) => h("option", { value: incident.id }, optionWords(incident, far))),
      );
      select.selectedIndex = select.options.length > 0 ? 0 : -1;
    };
    const search = h("input", { type: "search", oninput: () => list(search.value) });
    list("");
    const moved = whole.linked_reports.map((report) => report.report_id);
    ask({
      title: t("merge.title"),
      says: t("merge.says", { title: whole.title }),
      fields: [labelled(t("merge.search"), search), labelled(t("merge.into"), select)],
      submit: t("do.merge"),
      reasons: presets("merge"),
      refresh: this.again,
      run: async (reason, key) => {
        const into = select.value;
        await edit<Answer>(`/v1/incidents/${whole.id}/merge`, { into, reason }, key, whole.version);
        this.desk.open(into);
        this.desk.done.add(t("done.merged", { title: whole.title }), {
          label: t("undo.merge"),
          run: async (why, again) => {
            await edit<Answer>(`/v1/incidents/${into}/split`, { reports: moved, reason: why }, again);
            this.desk.refresh();
          },
        });
      },
    });
  }

  private near(
    here: Incident | undefined,
    wanted: (incident: Incident) => boolean,
  ): { incident: Incident; far: number | null }[] {
    const found: { incident: Incident; far: number | null }[] = [];
    for (const incident of this.desk.store.incidents.values()) {
      if (incident.status !== "open" || !wanted(incident)) continue;
      const both = here?.lon != null && here.lat !== null && incident.lon !== null && incident.lat !== null;
      const far = both
        ? km({ lon: here.lon ?? 0, lat: here.lat ?? 0 }, { lon: incident.lon ?? 0, lat: incident.lat ?? 0 })
        : null;
      found.push({ incident, far });
    }
    return found.sort((a, b) => (a.far ?? 1e9) - (b.far ?? 1e9) || b.incident.priority - a.incident.priority);
  }

  split(whole: Whole, reports: string[]): void {
    if (reports.length === 0 || reports.length === whole.linked_reports.length) {
      this.desk.done.add(t(reports.length === 0 ? "split.choose_some" : "split.choose_fewer"), null);
      return;
    }
    ask({
      title: t("split.title"),
      says: t("split.says", { n: reports.length }),
      submit: t("do.split"),
      reasons: presets("split"),
      refresh: this.again,
      run: async (reason, key) => {
        const answer = await edit<Answer>(`/v1/incidents/${whole.id}/split`, { reports, reason }, key, whole.version);
        this.took(answer);
        const made = answer.properties.made;
        this.desk.done.add(t("done.split", { n: reports.length }), made === undefined ? null : {
          label: t("undo.split"),
          run: async (why, again) => {
            this.took(await edit<Answer>(`/v1/incidents/${made}/merge`, { into: whole.id, reason: why }, again));
          },
        }); // prettier-ignore
      },
    });
  }

  unlink(whole: Whole, report: Report): void {
    ask({
      title: t("unlink.title"),
      says: t("unlink.says"),
      fields: [h("blockquote", { class: "words long" }, report.title ?? report.text ?? "")],
      submit: t("do.unlink"),
      reasons: presets("split"),
      refresh: this.again,
      run: async (reason, key) => {
        const body = { report: report.report_id, reason };
        this.took(await edit<Answer>(`/v1/incidents/${whole.id}/unlink`, body, key, whole.version));
        this.desk.done.add(t("done.unlinked"), {
          label: t("undo.unlink"),
          run: async (why, again) => {
            const back = { report: report.report_id, reason: why };
            this.took(await edit<Answer>(`/v1/incidents/${whole.id}/link`, back, again));
          },
        });
      },
    });
  }

  close(whole: Whole): void {
    ask({
      title: t("close.title"),
      says: t("close.says"),
      submit: t("do.close"),
      reasons: presets("close"),
      refresh: this.again,
      run: async (reason, key) => {
        this.took(await edit<Answer>(`/v1/incidents/${whole.id}/close`, { reason }, key, whole.version));
        this.desk.done.add(t("done.closed", { title: whole.title }), null);
      },
    });
  }

  postNeed(whole: Whole): void {
    const kinds = things()
      .map(({ code, kind }) => [`${kind}:${code}`, thing(code)] as [string, string])
      .sort((a, b) => a[1].localeCompare(b[1]));
    const which = h("select", { required: true }, options(kinds, "item:boat"));
    const count = h("input", { type: "number", min: 1, max: 1_000_000, value: 1, required: true });
    ask({
      title: t("needs.post"),
      says: t("needs.post_says"),
      fields: [labelled(t("needs.what"), which), labelled(t("needs.quantity"), count)],
      submit: t("do.need"),
      reasons: presets("need"),
      run: async (reason, key) => {
        const [kind = "", code = ""] = which.value.split(":");
        const body = { [kind]: code, quantity: Number(count.value), incident: whole.id, reason };
        const made = await edit<{ id: string }>("/v1/needs", body, key);
        this.desk.refresh();
        this.desk.done.add(t("done.need", { what: thing(code) }), {
          label: t("undo.need"),
          run: async (why, again) => {
            await edit(`/v1/needs/${made.id}`, { status: "withdrawn", reason: why }, again, undefined, "PATCH");
            this.desk.refresh();
          },
        });
      },
    });
  }

  /** Change a need on the version that is read now: the dialog shows what it says at this moment. */
  private async change(need: Need, show: (version: number) => void): Promise<void> {
    const now = await call<{ version: number }>(`/v1/needs/${need.id}`);
    show(now.version);
  }

  declare(need: Need): void {
    void this.change(need, (version) => {
      const place = new Place(this.desk, need.lon === null);
      ask({
        title: t("declare.title", { need: needWords(need) }),
        says: t("declare.says"),
        fields: [need.lon === null && place.box, need.reason !== null && h("p", { class: "quiet words" }, need.reason)],
        submit: t("do.declare"),
        reasons: presets("declare"),
        refresh: this.again,
        run: async (reason, key) => {
          const location = need.lon === null ? { location: place.value() } : {};
          await edit(`/v1/needs/${need.id}`, { status: "declared", ...location, reason }, key, version, "PATCH");
          this.desk.refresh();
          this.desk.done.add(t("done.declared", { need: needWords(need) }), {
            label: t("undo.need"),
            run: async (why, again) => {
              await edit(`/v1/needs/${need.id}`, { status: "withdrawn", reason: why }, again, undefined, "PATCH");
              this.desk.refresh();
            },
          });
        },
      });
    });
  }

  withdraw(need: Need): void {
    void this.change(need, (version) =>
      ask({
        title: t("withdraw.title", { need: needWords(need) }),
        says: t("withdraw.says"),
        submit: t("do.withdraw"),
        reasons: presets("withdraw"),
        refresh: this.again,
        run: async (reason, key) => {
          await edit(`/v1/needs/${need.id}`, { status: "withdrawn", reason }, key, version, "PATCH");
          this.desk.refresh();
          const again = { [need.item === null ? "skill" : "item"]: need.item ?? need.skill, quantity: need.quantity };
          this.desk.done.add(t("done.withdrawn", { need: needWords(need) }), need.incident === null ? null : {
            label: t("undo.withdraw"),
            run: async (why, next) => {
              await edit("/v1/needs", { ...again, incident: need.incident, reason: why }, next);
              this.desk.refresh();
            },
          }); // prettier-ignore
        },
      }),
    );
  }

  amend(need: Need): void {
    void this.change(need, (version) => {
      const count = h("input", { type: "number", min: 1, max: 1_000_000, value: need.quantity, required: true });
      ask({
        title: t("amend.title", { need: needWords(need) }),
        fields: [labelled(t("needs.quantity"), count)],
        submit: t("do.amend"),
        reasons: presets("need"),
        refresh: this.again,
        run: async (reason, key) => {
          const path = `/v1/needs/${need.id}`;
          await edit(path, { quantity: Number(count.value), reason }, key, version, "PATCH");
          this.desk.refresh();
          this.desk.done.add(t("done.amended", { need: needWords(need) }), {
            label: t("undo.amend", { n: need.quantity }),
            run: async (why, again) => {
              await edit(path, { quantity: need.quantity, reason: why }, again, undefined, "PATCH");
              this.desk.refresh();
            },
          });
        },
      });
    });
  }

  assign(need: Need): void {
    const select = h("select", { size: 6, required: true });
    const count = h("input", { type: "number", min: 1, max: need.ledger.open + need.ledger.offered, value: 1, required: true }); // prettier-ignore
    fill(select, h("option", { value: "" }, t("loading")));
    const said = h("p", { class: "quiet", role: "status" });
    void this.candidates(need).then((found) => {
      fill(select, options(found.slice(0, 200)));
      select.selectedIndex = found.length > 0 ? 0 : -1;
      fill(said, found.length === 0 ? t("assign.nobody") : t("assign.found", { n: found.length }));
    });
    ask({
      title: t("assign.title", { need: what(need) }),
      says: t("assign.says"),
      fields: [labelled(t(need.skill === null ? "assign.lot" : "assign.responder"), select), said, labelled(t("needs.quantity"), count)], // prettier-ignore
      submit: t("do.assign"),
      reasons: presets("assign"),
      run: async (reason, key) => {
        const who = need.skill === null ? { lot: select.value } : { responder: select.value };
        const body = { need: need.id, ...who, quantity: Number(count.value), reason };
        const made = await edit<{ assignment_id: string }>("/v1/assignments", body, key);
        this.desk.refresh();
        this.desk.done.add(t("done.assigned", { need: what(need) }), {
          label: t("undo.assign"),
          run: async (why, again) => {
            await edit(`/v1/offers/${made.assignment_id}/abandon`, { reason: why }, again);
            this.desk.refresh();
          },
        });
      },
    });
  }

  /** Who or what could meet a need, the nearest first. */
  private async candidates(need: Need): Promise<[string, string][]> {
    const far = (point: { lon: number; lat: number } | null): number =>
      point === null || need.lon === null || need.lat === null ? 1e9 : km(point, { lon: need.lon, lat: need.lat });
    const words = (label: string, away: number): string => (away < 1e8 ? `${label} · ${t("why.km", { n: Math.round(away) })}` : label); // prettier-ignore
    let found: { id: string; label: string; away: number }[];
    if (need.skill !== null) {
      const responders = await all<ResponderJson>(`/v1/responders?status=confirmed&skill=${need.skill}&limit=1000`, "responders", 3000); // prettier-ignore
      found = responders
        .filter((responder) => responder.exercise === need.exercise)
        .map((responder) => {
          const level = responder.skills.find(({ skill }) => skill === need.skill)?.level ?? 1;
          const label = [
            responder.organisation ?? t("why.no_organisation"),
            t(responder.kind === "team" ? "assign.team" : "assign.person", { n: responder.capacity }),
            t("assign.level", { n: level }),
          ].join(" · ");
          return { id: responder.responder_id, label, away: far(responder.home_point) };
        });
    } else {
      const lots = await all<LotJson>(`/v1/resources?status=available&item=${need.item}&limit=1000`, "resources", 5000);
      found = lots
        .filter((lot) => lot.item === need.item && lot.quantity > 0)
        .map((lot) => ({
          id: lot.lot_id,
          label: `${lot.organisation ?? t("why.no_organisation")} · ${quantity(lot.quantity, need.unit)}`,
          away: far(lot.location.lon === null || lot.location.lat === null ? null : { lon: lot.location.lon, lat: lot.location.lat }), // prettier-ignore
        }));
    }
    return found.sort((a, b) => a.away - b.away).map(({ id, label, away }) => [id, words(label, away)]);
  }

  release(assignment: string, need: Need): void {
    ask({
      title: t("release.title", { need: what(need) }),
      says: t("release.says"),
      submit: t("do.release"),
      reasons: presets("release"),
      run: async (reason, key) => {
        await edit(`/v1/assignments/${assignment}/request-release`, { reason }, key);
        this.desk.refresh();
        this.desk.done.add(t("done.release"), null);
      },
    });
  }

  /** Say where a report belongs that nobody could place. */
  place(report: Report): void {
    const place = new Place(this.desk, true);
    const words = [report.title, report.text].filter((text) => text).join("\n");
    ask({
      title: t("place.title"),
      says: t("place.says", { time: when(report.received_at) }),
      fields: [
        h("blockquote", { class: "words long" }, words === "" ? t("report.no_words") : words),
        report.location?.place !== undefined && h("p", null, t("place.said", { place: report.location.place })),
        place.box,
      ],
      submit: t("do.place"),
      reasons: presets("place"),
      run: async (reason, key) => {
        const body = { location: place.value(), reason };
        await edit(`/v1/reports/${report.report_id}`, body, key, undefined, "PATCH");
        this.desk.unplaced();
        this.desk.done.add(t("done.placed"), null);
      },
    });
  }
}

interface ResponderJson {
  responder_id: string;
  kind: string;
  capacity: number;
  organisation: string | null;
  exercise: boolean;
  skills: { skill: string; level: number }[];
  home_point: { lon: number; lat: number } | null;
}

interface LotJson {
  lot_id: string;
  item: string;
  quantity: number;
  organisation: string | null;
  location: { lon: number | null; lat: number | null };
}

function optionWords(incident: Incident, far: number | null): string {
  const parts = [incident.title.slice(0, 80), severityWord(incident.severity), hazard(incident.hazard)];
  if (far !== null) parts.push(far < 1 ? t("merge.metres", { n: Math.round(far * 1000) }) : t("why.km", { n: Math.round(far) })); // prettier-ignore
  return parts.join(" · ");
}

/** Where something is: a point taken on the map, or an area by its name. */
class Place {
  readonly box: HTMLElement;
  private readonly area: HTMLInputElement;
  private readonly lon = h("input", { type: "number", step: "any", min: -180, max: 180, inputmode: "decimal" });
  private readonly lat = h("input", { type: "number", step: "any", min: -90, max: 90, inputmode: "decimal" });
  private readonly names = new Map(Object.entries(areaCodes()).map(([code, name]) => [name.toLowerCase(), code]));

  constructor(
    private readonly desk: Desk,
    point: boolean,
  ) {
    this.area = h("input", { type: "text", list: "areas", autocomplete: "off" });
    const choices = h("datalist", { id: "areas" }, Object.values(areaCodes()).map((name) => h("option", { value: name }))); // prettier-ignore
    const pick = h("button", { type: "button", onclick: () => this.pick() }, t("place.pick"));
    const rows: Child[] = [
      this.desk.map !== null && pick,
      h("div", { class: "pair" }, labelled(t("place.lat"), this.lat), labelled(t("place.lon"), this.lon)),
      !point ? null : labelled(t("place.area"), this.area, t("place.area_hint")),
      choices,
    ];
    this.box = h("fieldset", null, h("legend", null, t("place.where")), rows);
  }

  private pick(): void {
    const dialog = this.box.closest("dialog");
    dialog?.close("picking");
    this.desk.showMap();
    this.desk.map?.pick((point) => {
      if (point !== null) {
        this.lon.value = String(point[0]);
        this.lat.value = String(point[1]);
      }
      if (dialog === null) return;
      document.body.append(dialog);
      dialog.showModal();
      this.lat.focus();
    });
  }

  value(): Record<string, number | string> {
    if (this.lon.value !== "" && this.lat.value !== "") {
      return { lon: Number(this.lon.value), lat: Number(this.lat.value) };
    }
    const code = this.names.get(this.area.value.trim().toLowerCase());
    return code === undefined ? {} : { admin: `kemendagri:${code}` };
  }
}
