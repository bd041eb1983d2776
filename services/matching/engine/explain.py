"""Why: who was left after each hard rule, and what stands behind each choice."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np

from services.matching.engine import rules
from services.matching.engine.candidates import Arcs
from services.matching.engine.flow import Duals
from services.matching.engine.model import (
    UNREACHED,
    Arrays,
    Assignment,
    Bools,
    Id,
    Ints,
    Lot,
    NeedLine,
    Plan,
    Responder,
    Settings,
    km_of,
)


def filter_counts(a: Arrays, settings: Settings, need: int) -> dict[str, int]:
    """How many responders (or lots) are left for one need after each hard rule, in the order of FILTERS.

    Rules that cannot apply to its kind are left out.
    """
    lo, hi = np.searchsorted(a.holder_code, [a.need_code[need], a.need_code[need] + 1])
    source, level = a.holder_source[lo:hi], a.holder_level[lo:hi]
    km = km_of(np.linalg.norm(a.source_xyz[source] - a.need_xyz[need], axis=1))
    p = rules.Pairs(np.full(len(source), need, np.int32), source, km, level)
    counts = {"code": len(source)}

    def count(name: str, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        nonlocal p
        p = p.keep(mask)
        counts[name] = len(p.need)

    person = not a.need_item[need]
    if person:
        count("level", p.level >= a.need_level[need])
        count("certificate", rules.passes_certificate(a, p))
        count("language", rules.passes_language(a, p))
    count("excluded", rules.passes_excluded(a, p))
    if person:
        count("conditions", rules.passes_conditions(a, p))
    count("travel", p.km <= a.source_limit_km[p.source])
    count("zone", a.need_open[p.need])
    fits, begin, finish = rules.times(a, p, settings)
    begin, finish = begin[fits], finish[fits]
    count("window", fits)
    if person:
        free = rules.passes_busy(a, p, begin, finish, settings)
        begin, finish = begin[free], finish[free]
        count("busy", free)
        count("hours", rules.passes_hours(a, p, begin, finish))
        enough = (a.source_capacity[p.source] > 0) & (a.source_minimum[p.source] <= a.source_capacity[p.source])
        count("team", enough & (a.source_minimum[p.source] <= a.need_quantity[need]))
    else:
        count("crew", a.source_crewed[p.source])
        count("stock", a.source_capacity[p.source] > 0)
        count("expiry", a.source_expires[p.source] >= a.need_end[p.need])
    return counts


@dataclass(frozen=True, slots=True)
class Standing:
    """How a used pair stands among all that were feasible for its need: rank by cost (1 is cheapest), how many there
    were, the best other source (None: leaving it unmet) and what taking that would cost the whole plan at least."""

    rank: int
    feasible: int
    other: int | None
    price: int


def standings(arcs: Arcs, weight: Ints, found: Duals, used: Ints, unmet: Bools) -> list[Standing]:
    """Standing of each used arc. Prices come from the duals: the direct costs of a swap and all that it sets off.

    `unmet` marks arcs whose units are unmet ones.
    """
    total = found.price[arcs.source] + arcs.cost
    needs = arcs.need[used]
    first, last = np.searchsorted(arcs.need, needs), np.searchsorted(arcs.need, needs + 1)
    out = []
    for e, i, lo, hi in zip(used.tolist(), needs.tolist(), first.tolist(), last.tolist(), strict=True):
        rank, feasible = 1 + int((arcs.cost[lo:hi] < arcs.cost[e]).sum()), int((~unmet[lo:hi]).sum())
        own, others = int(total[e]), total[lo:hi].copy()
        others[e - lo] = UNREACHED
        k = int(np.argmin(others))
        if others[k] < weight[i] and not unmet[lo + k]:
            out.append(Standing(rank, feasible, int(arcs.source[lo + k]), max(int(others[k]) - own, 0)))
        else:
            out.append(Standing(rank, feasible, None, max(min(int(weight[i]), int(others[k])) - own, 0)))
    return out


def holders(arcs: Arcs, units: Ints, short: Ints, most: int = 5) -> dict[int, list[tuple[int, int]]]:
    """For unmet needs: (source, need it serves instead) of the cheapest feasible sources, `most` at most."""
    serves: dict[int, int] = {}
    for e in np.flatnonzero(units).tolist():
        serves.setdefault(int(arcs.source[e]), int(arcs.need[e]))
    out = {}
    for i in short.tolist():
        lo, hi = np.searchsorted(arcs.need, (i, i + 1))
        near = lo + np.argsort(arcs.cost[lo:hi], kind="stable")
        held = [(s, serves[s]) for s in arcs.source[near].tolist() if serves.get(s, i) != i]
        out[i] = held[:most]
    return out


# ---------------------------------------------------------------------------------------------------------- sentences
Language = Literal["id", "en"]
ZONES = {"Asia/Jakarta": "WIB", "Asia/Pontianak": "WIB", "Asia/Makassar": "WITA", "Asia/Jayapura": "WIT"}

_PART = {
    "travel": ("jarak", "travel"),
    "fatigue": ("jam yang sudah dijalani", "hours already worked"),
    "decline": ("kemungkinan menolak", "chance of a no"),
    "level": ("tingkat lebih tinggi dari yang diminta", "more skill than asked for"),
    "rarity": ("keahlian langka", "rare skills"),
    "organisation": ("organisasi lain", "another organisation"),
    "shelf": ("masa simpan masih panjang", "keeps longer than needed"),
    "tie": ("penentu bila sama", "tie breaker"),
}
_LEFT = {
    "code": ("memilikinya", "have it"),
    "level": ("setelah tingkat keahlian", "after skill level"),
    "certificate": ("setelah sertifikat", "after certificates"),
    "language": ("setelah bahasa", "after languages"),
    "excluded": ("setelah yang menolak atau dikecualikan", "after those who declined or are excluded"),
    "conditions": ("setelah yang tidak boleh dikirim ke sana", "after those not to be sent into it"),
    "travel": ("setelah batas jarak", "after travel limits"),
    "zone": ("setelah zona bahaya", "after hazard zones"),
    "window": ("setelah waktu tersedia dan perjalanan", "after availability and travel time"),
    "busy": ("setelah tugas lain dan istirahat", "after other duties and rest"),
    "hours": ("setelah batas jam kerja", "after the limit of hours"),
    "team": ("setelah ukuran tim", "after team size"),
    "crew": ("setelah awak", "after crews"),
    "stock": ("setelah stok", "after stock"),
    "expiry": ("setelah kedaluwarsa", "after expiry"),
}


def lifted_sentence(severity: int, counts_as: int, language: Language) -> str:
    """That a need counts as graver than it is, because it waits so long."""
    if language == "id":
        return f"Karena sudah lama menunggu, kebutuhan ini dihitung sebagai tingkat {counts_as}, bukan {severity}."
    return f"It has waited so long that it counts as severity {counts_as}, not {severity}."


def assignment_sentences(
    need: NeedLine,
    source: Responder | Lot,
    one: Assignment,
    settings: Settings,
    language: Language,
    zone: ZoneInfo,
    counts_as: int | None = None,
) -> list[str]:
    """Why this source for this need: the rules it passed with their values, cost, rank and the best alternative; and
    that the need was lifted to `counts_as`, where it was."""
    indonesian = language == "id"

    def say(local: str, english: str) -> str:
        return local if indonesian else english

    arrives, until = _clock(one.arrives_at, zone), _clock(one.ends_at, zone)
    limit = source.delivery_limit_km if isinstance(source, Lot) else source.travel_limit_km
    km = f"{_number(one.km, language)} km ({say('batas', 'limit')} {_number(limit, language)} km)"
    passed = []
    if isinstance(source, Lot):
        stock = _number(source.quantity, language)
        passed.append(say(f"stok {source.item} {stock}", f"{stock} of {source.item} in stock"))
        if source.expires_at:
            day = source.expires_at.astimezone(zone).date().isoformat()
            passed.append(say(f"berlaku sampai {day}", f"good until {day}"))
    else:
        has = source.skills[need.code]
        passed.append(
            say(
                f"keahlian {need.code} tingkat {has} (diminta {need.level})",
                f"skill {need.code} at level {has} (asked: {need.level})",
            )
        )
        for name in sorted(need.certificates):
            day = source.certificates[name].astimezone(zone).date().isoformat()
            passed.append(say(f"sertifikat {name} sampai {day}", f"certificate {name} until {day}"))
        if need.languages:
            spoken = ", ".join(sorted(need.languages))
            passed.append(say(f"bahasa {spoken}", f"speaks {spoken}"))
        own = settings.max_hours if source.max_hours is None else source.max_hours
        worked, most = _number(source.hours_worked, language), _number(own, language)
        passed.append(say(f"sudah bekerja {worked} dari {most} jam", f"has worked {worked} of {most} hours"))
    passed.append(say(f"jarak {km}", f"distance {km}"))
    passed.append(say(f"tiba {arrives}, terpakai sampai {until}", f"arrives {arrives}, taken up until {until}"))
    split = ", ".join(f"{_PART[name][0 if indonesian else 1]} {value}" for name, value in one.parts.items())
    sentences = [
        say("Memenuhi semua syarat: ", "Meets every rule: ") + "; ".join(passed) + ".",
        say(f"Biaya {one.cost} per unit: {split}.", f"Costs {one.cost} a unit: {split}."),
        say(
            f"Peringkat {one.rank} dari {one.feasible} yang memenuhi syarat.",
            f"Rank {one.rank} of {one.feasible} who meet every rule.",
        ),
    ]
    if one.other is None:
        sentences.append(
            say(
                "Tanpa dia, satu unit kebutuhan ini tidak terpenuhi.",
                "Without it, one unit of this need would stay unmet.",
            )
        )
    else:
        sentences.append(
            say(
                f"Pilihan terbaik berikutnya: {one.other}; rencana paling sedikit {one.other_price} lebih mahal.",
                f"The best alternative is {one.other}; the plan would cost at least {one.other_price} more.",
            )
        )
    if counts_as is not None:
        sentences.append(lifted_sentence(need.severity, counts_as, language))
    return sentences


def unmet_sentences(need: NeedLine, plan: Plan, language: Language) -> list[str]:
    """Why units of this need stay unmet: who is left after each rule, or whom the feasible serve, and what one more
    would be worth. Empty where nothing is unmet."""
    units, k = plan.unmet.get(need.need_id, 0), 0 if language == "id" else 1
    if not units:
        return []
    sentences = [
        (
            f"{units} dari {need.quantity} unit {need.code} belum terpenuhi.",
            f"{units} of {need.quantity} {need.code} unmet.",
        )[k]
    ]
    lifted = plan.lifted.get(need.need_id)
    if lifted:
        sentences.append(lifted_sentence(need.severity, lifted, language))
    counts = plan.filters.get(need.need_id)
    if counts:
        told, last = [], None
        for name, left in counts.items():
            if left != last:
                told.append(f"{left} {_LEFT[name][k]}")
            last = left
            if not left:
                break
        sentences.append((f"Yang tersisa: {' → '.join(told)}.", f"Left over: {' → '.join(told)}.")[k])
    held = plan.held.get(need.need_id, ())
    if held:
        others = ", ".join(f"{source} ({other})" for source, other in held)
        sentences.append(
            (
                f"Yang memenuhi syarat dipakai untuk kebutuhan lain: {others}.",
                f"Those who meet every rule serve other needs: {others}.",
            )[k]
        )
    value = plan.shadow.get(need.need_id, 0)
    sentences.append(
        (
            f"Satu unit {need.code} lagi di sini bernilai {value} bagi rencana.",
            f"One more unit of {need.code} here is worth {value} to the plan.",
        )[k]
    )
    return sentences


def move_sentences(
    moved: Mapping[tuple[Id, Id], int],
    needs: Mapping[Id, NeedLine],
    unmet: Mapping[Id, int],
    language: Language,
    names: Mapping[Id, str] | None = None,
) -> list[str]:
    """Who moved where through one event and why, from the cause along the chain to where it ends.

    `moved` is what `LivePlan` returned for the event, `unmet` its unmet units after it; `needs` are the lines in
    question (one that is gone may be missing), `names` what sources and needs are called instead of their ids.
    """
    called = names or {}
    gains: dict[Id, dict[Id, int]] = {}
    losses: dict[Id, dict[Id, int]] = {}
    for (need, source), units in sorted(moved.items(), key=str):
        (gains if units > 0 else losses).setdefault(source, {})[need] = abs(units)
    # (source, from, to, units): what a source loses goes to what it gains, as far as it goes; None: from or to nowhere.
    steps: list[tuple[Id, Id | None, Id | None, int]] = []
    for source in sorted({*gains, *losses}, key=str):
        lost, won = list(losses.get(source, {}).items()), list(gains.get(source, {}).items())
        while lost or won:
            a, b = lost[0] if lost else (None, won[0][1]), won[0] if won else (None, lost[0][1])
            n = min(a[1], b[1])
            steps.append((source, a[0], b[0], n))
            for rows in (lost, won):
                if rows:
                    rows[0] = (rows[0][0], rows[0][1] - n)
                    if not rows[0][1]:
                        rows.pop(0)
    net: dict[Id, int] = {}
    for (need, _), units in moved.items():
        net[need] = net.get(need, 0) + units

    def say(local: str, english: str) -> str:
        return local if language == "id" else english

    def name(one: Id | None) -> str:
        return called.get(one, str(one)) if one is not None else ""

    def who(source: Id, n: int) -> str:
        return name(source) if n == 1 else say(f"{n} unit dari {name(source)}", f"{n} units of {name(source)}")

    def why(at: Id, left: Id) -> str:
        """Why somebody comes to a need, leaving another."""
        gone = next((step for step in steps if step[1] == at), None)
        x, y = needs.get(left), needs.get(at)
        if net[left] < 0 and not unmet.get(left):
            return say(f"{name(left)} tidak lagi membutuhkannya", f"{name(left)} wants fewer now")
        graver = ""
        if net[left] < 0 and x and y and y.severity > x.severity:
            graver = say(
                f"{name(at)} lebih gawat (tingkat {y.severity}, {name(left)} tingkat {x.severity})",
                f"{name(at)} is graver (severity {y.severity}, {name(left)} has {x.severity})",
            )
        if gone is not None:
            cause = say(f"{name(gone[0])} tidak lagi ke sana", f"{name(gone[0])} no longer serves it")
            if gone[2] is not None:
                cause = say(
                    f"{name(gone[0])} pindah dari sana ke {name(gone[2])}",
                    f"{name(gone[0])} moved from there to {name(gone[2])}",
                )
            return cause + (say(" dan ", " and ") + graver if graver else "")
        if graver:
            return graver
        if net[left] < 0:
            return say(
                f"tanpa dia {name(left)} lebih sedikit merugikan rencana daripada {name(at)}",
                f"leaving {name(left)} without costs the plan less than leaving {name(at)} without",
            )
        return say(f"{name(at)} masih kekurangan", f"{name(at)} still lacked some")

    told: list[str] = []
    left = list(steps)

    def tell(step: tuple[Id, Id | None, Id | None, int]) -> None:
        left.remove(step)
        source, a, b, n = step
        if a is None:
            told.append(say(f"{who(source, n)} ditugaskan ke {name(b)}.", f"{who(source, n)} goes to {name(b)}."))
        elif b is None:
            told.append(
                say(f"{who(source, n)} tidak lagi ke {name(a)}.", f"{who(source, n)} no longer serves {name(a)}.")
            )
        else:
            told.append(
                say(
                    f"{who(source, n)} pindah dari {name(a)} ke {name(b)} karena {why(b, a)}.",
                    f"{who(source, n)} moved from {name(a)} to {name(b)} because {why(b, a)}.",
                )
            )
        # Whoever takes the place that became free comes next.
        for other in list(left):
            if a is not None and other[2] == a and other in left:
                tell(other)

    # Causes first: whoever left the plan, then whoever came to a need that has more than before.
    for step in sorted(steps, key=lambda step: (step[2] is not None, step[2] is None or net[step[2]] <= 0)):
        if step in left:
            tell(step)
    for need in sorted((one for one, units in net.items() if units < 0 and unmet.get(one)), key=str):
        told.append(
            say(
                f"{name(need)} kini kekurangan {unmet[need]} unit.",
                f"{name(need)} lacks {unmet[need]} now.",
            )
        )
    return told


def _number(value: float, language: Language) -> str:
    text = f"{value:,.1f}".removesuffix(".0")
    return text.translate(str.maketrans(",.", ".,")) if language == "id" else text


def _clock(at: datetime, zone: ZoneInfo) -> str:
    local = at.astimezone(zone)
    return f"{local:%Y-%m-%d %H:%M} {ZONES.get(zone.key, zone.key)}"
