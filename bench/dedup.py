"""Linking measured: likeness of labelled pairs, whole streams, a burst, and the cost of a report as incidents grow.

    python -m bench.dedup [--json] [--quick]
    python -m bench.dedup --fit       # fits the weights to the labelled pairs and writes linking_weights.json

The labelled sets lie outside the repository, in the folder named by GOTONG_SHARED (else `../shared` beside the
repository). Where they are absent, a seeded generator stands in for texts and truth, and the figures say so.
Nothing is tuned to the id of a pair: a fit sees features and yes or no.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import random
import re
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from bench import flood_map
from services.intake import linking
from services.intake.linking import DEFAULT, FEATURES, SIGNS, Linker, LinkReport, LinkSettings, haversine_km
from services.intake.text import read

SEED = 20261124
ROOT = Path(__file__).resolve().parent.parent
SETTINGS = Path(linking.__file__).with_name("linking_weights.json")
SPACE = UUID("6f1a3c52-6d0e-5f3b-9a57-2f6f1c0d9e11")
RIDGE = 0.5  # strength of the pull to zero, on features scaled to one standard deviation
DRAWS = 10
FOLDS = 5

Floats = NDArray[np.float64]


def shared_data() -> Path | None:
    """The folder of labelled and real sets; None where there is none."""
    folder = Path(os.environ.get("GOTONG_SHARED", ROOT.parent / "shared")) / "data"
    return folder if (folder / "duplicate-pairs" / "pairs.csv").exists() else None


# ---- sets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """The reports of one set in time order, and its labelled pairs as (id, id, duplicate)."""

    name: str
    reports: list[LinkReport]
    pairs: list[tuple[UUID, UUID, bool]]


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def load(data: Path, name: str, *, location: bool = False) -> Stream:
    """`haiti-2010` or `petabencana`, as `gotong replay` would send it; `location`: the place string too."""
    haiti = name == "haiti-2010"
    zone = ZoneInfo("America/Port-au-Prince" if haiti else "Asia/Jakarta")
    body, at = ("description", "reported_at") if haiti else ("text", "created_at_local")
    reports = [
        LinkReport(
            report_id=uuid5(SPACE, f"{name}/{row['id']}"),
            text=f"{row['title']}\n{row[body]}",
            lon=float(row["lon"]),
            lat=float(row["lat"]),
            admin=None,
            observed_at=datetime.fromisoformat(row[at]).replace(tzinfo=zone),
            hazard=row.get("disaster_type") or None,
            contact=None,
            location_text=row.get("location") if location else None,
        )
        for row in _rows(data / name / ("reports.csv" if haiti else "reports_2020_2021.csv"))
    ]
    reports.sort(key=lambda r: r.observed_at)
    pairs = [
        (uuid5(SPACE, f"{name}/{row['id_a']}"), uuid5(SPACE, f"{name}/{row['id_b']}"), row["duplicate"] == "yes")
        for row in _rows(data / "duplicate-pairs" / "pairs.csv")
        if row["set"] == name and row["duplicate"] != "unsure"
    ]
    return Stream(name, reports, pairs)


def generate(count: int, seed: int = SEED, *, words: int = 0) -> Stream:
    """Reports of made-up floods, each told by one to five people in their own words at about the same place and
    time. `words` more words of everyday talk make the texts long. Pairs: all of one flood, and as many others near."""
    rng = random.Random(seed)
    consonants, vowels = "bcdghjklmnprstwy", "aiueo"

    def name() -> str:
        return "".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(rng.randint(2, 4)))

    talk = [name() for _ in range(3000)]
    lead = ["banjir", "air masuk rumah", "tolong banjir", "genangan", "bnjr parah", "air naik terus"]
    depth = ["selutut", "sepinggang", "50 cm", "1 meter", "sedada", "20-30 cm"]
    asked = [
        "butuh perahu",
        "mohon bantuan",
        "tolong evakuasi",
        "listrik padam",
        "anak dan lansia sakit",
        "pompa rusak",
    ]
    start = datetime(2026, 11, 1, tzinfo=UTC)
    reports: list[LinkReport] = []
    pairs: list[tuple[UUID, UUID, bool]] = []
    number = 0
    before: UUID | None = None
    while number < count:
        where = f"kampung {name()} {name()}"
        street = f"jalan {name()} {rng.randint(1, 90)}"
        lon, lat = 106.3 + 1.4 * rng.random(), -6.9 + 0.9 * rng.random()
        at = start + timedelta(hours=rng.random() * 24 * 25)
        told: list[UUID] = []
        for _ in range(min(count - number, rng.choice([1, 1, 1, 2, 3, 5]))):
            parts = [rng.choice(lead), rng.choice(depth), rng.choice(asked)]
            parts.insert(rng.randint(0, 3), rng.choice([where, street, f"{street} {where}"]))
            parts.extend(rng.choices(talk, k=words))
            report_id = uuid5(SPACE, f"generated/{seed}/{words}/{number}")
            reports.append(
                LinkReport(
                    report_id,
                    " ".join(parts),
                    round(lon + rng.gauss(0, 0.0008), 6),
                    round(lat + rng.gauss(0, 0.0008), 6),
                    None,
                    at + timedelta(hours=abs(rng.gauss(0, 3))),
                    "flood",
                    None,
                )
            )
            told.append(report_id)
            number += 1
        pairs.extend((a, b, True) for i, a in enumerate(told) for b in told[i + 1 :])
        if before is not None:
            pairs.append((before, told[0], False))
        before = told[-1]
    reports.sort(key=lambda r: r.observed_at)
    return Stream("generated", reports, pairs)


# ---- pairs: features, fit, cross-validation -------------------------------------------------------------------------


def pair_features(stream: Stream) -> list[dict[str, float]]:
    """The features of each labelled pair when its later report arrives, so that word statistics know no future."""
    rank = {r.report_id: n for n, r in enumerate(stream.reports)}
    due: dict[UUID, list[tuple[int, UUID]]] = defaultdict(list)
    for n, (a, b, _) in enumerate(stream.pairs):
        earlier, later = sorted((a, b), key=rank.__getitem__)
        due[later].append((n, earlier))
    found: list[dict[str, float]] = [{} for _ in stream.pairs]
    linker = Linker()
    for report in stream.reports:
        for n, earlier in due.get(report.report_id, ()):
            found[n] = linker.compare(report, earlier)
        linker.add(report, report.report_id)
    return found


def groups(pairs: Sequence[tuple[UUID, UUID, bool]]) -> list[UUID]:
    """For each pair the group it is in: pairs that share a report must not be in different folds."""
    parent: dict[UUID, UUID] = {}

    def root(x: UUID) -> UUID:
        parent.setdefault(x, x)
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for a, b, _ in pairs:
        parent[root(a)] = root(b)
    return [root(a) for a, _, _ in pairs]


def fit(features: Floats, truth: Floats, ridge: float) -> Floats:
    """Constant and weights of the logistic score, each weight with its forced sign."""
    scale = features.std(axis=0) + 1e-9
    scaled = features / scale

    def loss(theta: Floats) -> tuple[float, Floats]:
        z = theta[0] + scaled @ theta[1:]
        error = 1 / (1 + np.exp(-z)) - truth
        value = float((np.logaddexp(0, z) - truth * z).sum() + ridge / 2 * (theta[1:] ** 2).sum())
        return value, np.r_[error.sum(), scaled.T @ error + ridge * theta[1:]]

    bounds: list[tuple[float | None, float | None]] = [(None, None)]
    bounds += [(0, None) if SIGNS[name] > 0 else (None, 0) for name in FEATURES]
    result = minimize(loss, np.zeros(len(FEATURES) + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    theta: Floats = np.r_[result.x[0], result.x[1:] / scale]
    return theta


def predict(theta: Floats, features: Floats) -> Floats:
    z: Floats = theta[0] + features @ theta[1:]
    return 1 / (1 + np.exp(-z))


@dataclass(frozen=True)
class Labelled:
    """Both sets' pairs: features with and without the place string (a set without one has them equal)."""

    sets: list[str]
    truth: Floats
    group: list[UUID]
    views: list[Floats]
    streams: list[Stream]


def labelled(data: Path) -> Labelled:
    plain = [load(data, "haiti-2010"), load(data, "petabencana")]
    placed = [load(data, "haiti-2010", location=True), plain[1]]
    pairs = [p for s in plain for p in s.pairs]

    def matrix(streams: list[Stream]) -> Floats:
        return np.array([[f[name] for name in FEATURES] for s in streams for f in pair_features(s)])

    return Labelled(
        [s.name for s in plain for _ in s.pairs],
        np.array([float(p[2]) for p in pairs]),
        groups(pairs),
        [matrix(plain), matrix(placed)],
        plain,
    )


def cross_validate(pairs: Labelled, draws: int = DRAWS) -> list[Floats]:
    """Probabilities of each view's pairs from fits that did not see their group: one row for each draw of folds."""
    rng = np.random.default_rng(SEED)
    names = sorted(set(pairs.group))
    out = [np.zeros((draws, len(pairs.truth))) for _ in pairs.views]
    for draw in range(draws):
        fold = dict(zip(names, rng.permutation(len(names)) % FOLDS, strict=True))
        folds = np.array([fold[g] for g in pairs.group])
        for k in range(FOLDS):
            seen = folds != k
            # Both views of a pair are one observation seen twice: the ridge counts twice as well.
            theta = fit(
                np.vstack([v[seen] for v in pairs.views]), np.tile(pairs.truth[seen], len(pairs.views)),
                RIDGE * len(pairs.views),
            )  # fmt: skip
            for view, probabilities in zip(pairs.views, out, strict=True):
                probabilities[draw, ~seen] = predict(theta, view[~seen])
    return out


def scores(said: NDArray[np.bool_], truth: Floats) -> tuple[float, float, float]:
    """Precision, recall, F1."""
    yes = truth > 0
    right = float((said & yes).sum())
    precision = right / max(1.0, float(said.sum()))
    recall = right / max(1.0, float(yes.sum()))
    return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)


def interval(said: NDArray[np.bool_], truth: Floats, which: int, draws: int = 1000) -> list[float]:
    """95 % bootstrap interval over the pairs of precision (0), recall (1) or F1 (2)."""
    rng = np.random.default_rng(SEED)
    values = []
    for _ in range(draws):
        pick = rng.integers(0, len(truth), len(truth))
        values.append(scores(said[pick], truth[pick])[which])
    return [round(float(v), 3) for v in np.quantile(values, [0.025, 0.975])]


def pair_figures(pairs: Labelled) -> dict[str, Any]:
    """Grouped cross-validation of the score, for reports without and with a place string, and rivals on the same
    pairs."""
    figures: dict[str, Any] = {}
    sets = np.array(pairs.sets)
    automatic = DEFAULT.automatic
    for view, probabilities in zip(("without_place_string", "with_place_string"), cross_validate(pairs), strict=True):
        part: dict[str, Any] = {}
        for name in ("haiti-2010", "petabencana"):
            rows = sets == name
            drawn = [scores(p[rows] >= 0.5, pairs.truth[rows]) for p in probabilities]
            p, r, f1 = np.mean(drawn, axis=0)
            spread = [round(float(min(d[2] for d in drawn)), 3), round(float(max(d[2] for d in drawn)), 3)]
            mean = probabilities[:, rows].mean(axis=0) >= 0.5
            part[name] = {
                "pairs": int(rows.sum()), "precision": round(float(p), 3), "recall": round(float(r), 3),
                "f1": round(float(f1), 3), "f1_draws": spread, "f1_interval": interval(mean, pairs.truth[rows], 2),
            }  # fmt: skip
        p, r, _ = np.mean([scores(q >= automatic, pairs.truth) for q in probabilities], axis=0)
        mean = probabilities.mean(axis=0) >= automatic
        part["automatic_both"] = {
            "threshold": automatic, "precision": round(float(p), 3), "recall": round(float(r), 3),
            "precision_interval": interval(mean, pairs.truth, 0), "recall_interval": interval(mean, pairs.truth, 1),
        }  # fmt: skip
        figures[view] = part
    figures["rivals"] = rivals(pairs)
    return figures


def rivals(pairs: Labelled) -> dict[str, dict[str, float]]:
    """F1 of plain rules on the same pairs."""

    def shingles(text: str) -> set[tuple[str, ...]]:
        words = read(text).words
        return {words[i : i + 3] for i in range(max(1, len(words) - 2))}

    rules: dict[str, Callable[[LinkReport, LinkReport], bool]] = {
        "within_300_m_and_24_h": lambda a, b: (
            _km(a, b) <= 0.3 and abs(a.observed_at - b.observed_at) <= timedelta(days=1)
        ),
        "three_word_shingles_jaccard_0.2": lambda a, b: (
            len(shingles(a.text) & shingles(b.text)) >= 0.2 * len(shingles(a.text) | shingles(b.text))
        ),
        "shared_contact_in_text": lambda a, b: bool(set(read(a.text).contacts) & set(read(b.text).contacts)),
    }
    found: dict[str, dict[str, float]] = {}
    for rule, judge in rules.items():
        found[rule] = {}
        for stream in pairs.streams:
            by_id = {r.report_id: r for r in stream.reports}
            said = np.array([judge(by_id[a], by_id[b]) for a, b, _ in stream.pairs])
            found[rule][stream.name] = round(scores(said, np.array([float(p[2]) for p in stream.pairs]))[2], 3)
    return found


def _km(a: LinkReport, b: LinkReport) -> float:
    return haversine_km(a.lon or 0.0, a.lat or 0.0, b.lon or 0.0, b.lat or 0.0)


def write_fit(data: Path) -> LinkSettings:
    """Fit to all labelled pairs and write the settings file; all but constant, weights and their origin stays."""
    pairs = labelled(data)
    theta = fit(np.vstack(pairs.views), np.tile(pairs.truth, len(pairs.views)), RIDGE * len(pairs.views))
    values = json.loads(SETTINGS.read_text(encoding="utf-8"))
    values["constant"] = round(float(theta[0]), 3)
    values["weights"] = {name: round(float(w), 3) + 0.0 for name, w in zip(FEATURES, theta[1:], strict=True)}
    counts = Counter(pairs.sets)
    values["fitted_on"] = ", ".join(f"{n} labelled pairs of {name}" for name, n in sorted(counts.items()))
    written = json.dumps(values, indent=2, ensure_ascii=False)
    # A list of words stays on one line, as a person would write it.
    written = re.sub(r"\[\s+(\"[^\[\]]*?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", written)
    SETTINGS.write_text(written + "\n", encoding="utf-8")
    return LinkSettings.of(values)


# ---- streams --------------------------------------------------------------------------------------------------------


def run(reports: Sequence[LinkReport], settings: LinkSettings = DEFAULT) -> tuple[dict[UUID, UUID], Counter[str]]:
    """Link a whole stream as intake does: each report's incident, and how often each outcome came."""
    linker = Linker(settings)
    incidents: dict[UUID, UUID] = {}
    outcomes: Counter[str] = Counter()
    for report in reports:
        link = linker.decide(report)
        incidents[report.report_id] = link.incident_id or report.report_id
        outcomes[link.outcome] += 1
        linker.add(report, incidents[report.report_id])
    return incidents, outcomes


def stream_figures(stream: Stream, settings: LinkSettings = DEFAULT) -> dict[str, Any]:
    """End to end: two reports are the same if they end in one incident. The bound is what the hard limits allow."""
    incidents, outcomes = run(stream.reports, settings)
    by_id = {r.report_id: r for r in stream.reports}
    members: dict[UUID, list[LinkReport]] = defaultdict(list)
    for report in stream.reports:
        members[incidents[report.report_id]].append(report)
    said = np.array([incidents[a] == incidents[b] for a, b, _ in stream.pairs])
    truth = np.array([float(p[2]) for p in stream.pairs])
    allowed = np.array(
        [
            yes and _km(by_id[a], by_id[b]) <= settings.most_km and _within(settings, by_id[a], by_id[b])
            for a, b, yes in stream.pairs
        ]
    )  # fmt: skip
    p, r, f1 = scores(said, truth)
    return {
        "reports": len(stream.reports),
        "incidents": len(members),
        **{outcome: outcomes[outcome] for outcome in ("linked", "suggested", "new")},
        "precision": round(p, 3),
        "recall": round(r, 3),
        "f1": round(f1, 3),
        "f1_interval": interval(said, truth, 2),
        "recall_bound_of_limits": round(scores(allowed, truth)[1], 3),
        "biggest": sorted(map(len, members.values()), reverse=True)[:6],
        "widest_km": round(max(_width(m) for m in members.values()), 2),
        "longest_h": round(max(_hours(min(m, key=_at), max(m, key=_at)) for m in members.values()), 1),
    }


def _at(report: LinkReport) -> datetime:
    return report.observed_at


def _hours(a: LinkReport, b: LinkReport) -> float:
    return abs(a.observed_at - b.observed_at).total_seconds() / 3600


def _within(settings: LinkSettings, a: LinkReport, b: LinkReport) -> bool:
    lasting = all(r.hazard is None or r.hazard in settings.lasting_hazards for r in (a, b))
    return _hours(a, b) <= (settings.lasting_hours if lasting else settings.most_hours)


def _width(members: list[LinkReport]) -> float:
    points = list({(r.lon, r.lat): r for r in members}.values())
    return max((_km(a, b) for i, a in enumerate(points) for b in points[i + 1 :]), default=0.0)


def burst_figures(count: int) -> dict[str, Any]:
    """Equal reports at one pin, a second apart, after a thousand others."""
    before = generate(1000).reports
    start = before[-1].observed_at
    equal = [
        LinkReport(uuid5(SPACE, f"burst/{n}"), "Banjir di Kampung Arus, tolong perahu", 106.866, -6.222, None,
                   start + timedelta(seconds=n), "flood", None)
        for n in range(count)
    ]  # fmt: skip
    began = time.process_time()
    incidents, _ = run([*before, *equal])
    seconds = time.process_time() - began
    return {
        "reports": count,
        "incidents": len({incidents[r.report_id] for r in equal}),
        "reports_per_s": round((count + len(before)) / seconds),
    }


# ---- cost -----------------------------------------------------------------------------------------------------------


def crowd(sample: Sequence[LinkReport], count: int) -> Iterator[LinkReport]:
    """As many open incidents as asked, from altered copies of the sample: put elsewhere, rarer words renamed, so
    that common words stay as common as they are and nothing else matches."""
    common = Counter(word for report in sample for word in read(report.text).words)
    kept = {word for word, n in common.items() if n > max(3, len(sample) // 500)}
    tokens = [report.text.lower().split() for report in sample]
    for n in range(count):
        report = sample[n % len(sample)]
        turn = n // len(sample) + 1
        text = " ".join(w if w in kept or not w.isalpha() else f"{w}{_letters(turn)}" for w in tokens[n % len(sample)])
        yield replace(
            report,
            report_id=uuid5(SPACE, f"crowd/{n}"),
            text=text,
            lon=((report.lon or 0.0) + 0.37 * turn + 180) % 360 - 180,
            lat=max(-60.0, min(60.0, (report.lat or 0.0) + 0.11 * (turn % 90))),
        )


def _letters(number: int) -> str:
    """A suffix without digits, which the reader of texts would cut off."""
    out = ""
    while number:
        number, digit = divmod(number, 20)
        out += "bcdfghjklmnpqrstvwxz"[digit]
    return out


def cost(kind: str, open_incidents: int, measured: int) -> dict[str, float]:
    """Processor time to decide and index one report, reading its text included, beside so many open incidents; in a
    process of its own, so that the memory is this linker's. Wall time is told beside it: on a busy machine it holds
    the others' turns."""
    data = shared_data()
    if data is not None:
        sample = load(data, "petabencana" if kind == "short" else "haiti-2010").reports
    else:
        sample = generate(3000, words=0 if kind == "short" else 60).reports
    linker = Linker()
    empty_mb = _memory_mb()
    for report in crowd(sample, open_incidents):
        linker.add(report, report.report_id)
    seconds: list[float] = []
    wall = time.perf_counter()
    for report in sample[:measured]:
        began = time.process_time()
        link = linker.decide(report)
        linker.add(report, link.incident_id or report.report_id)
        seconds.append(time.process_time() - began)
    wall = time.perf_counter() - wall
    began = time.process_time()
    for report in sample[:measured]:
        read(report.text)
    reading = time.process_time() - began
    ordered = sorted(seconds)
    return {
        "reports_per_s": round(len(seconds) / sum(seconds)),
        "wall_reports_per_s": round(len(seconds) / wall),
        "mean_us": round(1e6 * sum(seconds) / len(seconds), 1),
        "p99_ms": round(1e3 * ordered[math.ceil(0.99 * len(ordered)) - 1], 3),
        "worst_ms": round(1e3 * ordered[-1], 2),
        "share_of_reading_the_text": round(reading / sum(seconds), 2),
        "memory_mb": round(_memory_mb() - empty_mb, 1),
    }


def _memory_mb() -> float:
    """Resident memory now; the peak where the system does not tell (then sizes only grow)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def cost_figures(sizes: tuple[int, int], measured: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for kind in ("short", "long"):
        for size in sizes:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                figures[f"{kind}_{size}"] = pool.submit(cost, kind, size, measured).result()
        few, many = (figures[f"{kind}_{size}"] for size in sizes)
        figures[f"{kind}_slower"] = round(many["mean_us"] / few["mean_us"], 2)
    return figures


# ---- command --------------------------------------------------------------------------------------------------------


def measure(*, quick: bool = False) -> dict[str, Any]:
    """Everything, as one object of named figures."""
    data = shared_data()
    sizes, measured, burst = ((1_000, 10_000), 1000, 2000) if quick else ((10_000, 100_000), 2200, 20_000)
    result: dict[str, Any] = {
        "bench": "dedup",
        "seed": SEED,
        "machine": f"{platform.machine()} {platform.system()} Python {platform.python_version()} {os.cpu_count()} CPUs",
        "size": {"open_incidents": sizes, "measured": measured, "burst": burst},
        "data": "labelled sets" if data else "generated only: the labelled sets are not here",
        "settings": {"edition": DEFAULT.edition, "fitted_on": DEFAULT.fitted_on, "automatic": DEFAULT.automatic},
        "generated": stream_figures(generate(1500)),
    }
    if data is not None:
        pairs = labelled(data)
        result["pairs"] = pair_figures(pairs)
        result["streams"] = {s.name: stream_figures(s) for s in pairs.streams}
        # The same rule where needs that go on for weeks may be one incident for 45 days, and where a wrong pin may
        # not part a copy: what the limits cost.
        wide = replace(DEFAULT, lasting_hours=45 * 24.0)
        result["haiti_45_days"] = stream_figures(pairs.streams[0], wide)
        result["haiti_45_days_any_width"] = stream_figures(pairs.streams[0], replace(wide, most_km=200.0))
        flood = data / "petabencana"
        if (flood / "reports_2017_02_jabodetabek.geojson").exists():
            result["flood_of_february_2017"] = flood_map.look(flood, lambda reports: run(reports)[0], SEED)
    result["burst"] = burst_figures(burst)
    result["cost"] = cost_figures(sizes, measured)
    return result


def table(result: dict[str, Any]) -> str:
    """The figures as indented lines: one name and value a line."""
    lines: list[str] = []

    def walk(value: Any, name: str, depth: int) -> None:
        if isinstance(value, dict) and value and any(isinstance(v, dict) for v in value.values()):
            lines.append("  " * depth + name)
            for key, inner in value.items():
                walk(inner, str(key), depth + 1)
        elif isinstance(value, dict):
            lines.append("  " * depth + f"{name:<34}" + "  ".join(f"{k} {v}" for k, v in value.items()))
        else:
            lines.append("  " * depth + f"{name:<34}{value}")

    for key, inner in result.items():
        walk(inner, key, 0)
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.dedup", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    parser.add_argument("--fit", action="store_true", help="fit the weights to the labelled pairs and write them")
    options = parser.parse_args(argv)
    if options.fit:
        data = shared_data()
        if data is None:
            print("The labelled pairs are not here: set GOTONG_SHARED to the folder that holds data/.", file=sys.stderr)
            return 1
        settings = write_fit(data)
        print(json.dumps({"constant": settings.constant, **settings.weights}, indent=None if options.json else 2))
        return 0
    result = measure(quick=options.quick)
    print(json.dumps(result) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
