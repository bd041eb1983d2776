"""The gazetteer: which area a place name means, as people write it, and when it means none for sure."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import vocabulary
from services.intake.app import service
from services.intake.places import find_area
from services.runtime.db import Database
from services.runtime.service import Service
from tests.conftest import bearer, shared_file
from tests.intake.patience import patient


def code(said: str) -> str | None:
    found = find_area(said)
    return found.code if found else None


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        # As it is called
        ("Kabupaten Demak", "33.21"), ("Kab. Demak", "33.21"), ("KAB DEMAK", "33.21"), ("demak", "33.21"),
        ("Kota Bandung", "32.73"), ("Kab. Bandung", "32.04"), ("Kab. Bandung Barat", "32.17"), ("Kota Baru", "63.02"),
        ("Kabupaten Lima Puluh Kota", "13.07"), ("Kab. Gunung Kidul", "34.03"), ("Kota Sungai Penuh", "15.72"),
        ("Kota Adm. Jakarta Timur", "31.75"), ("Kep. Seribu", "31.01"), ("Jawa Barat", "32"), ("Prov. Jawa Tengah", "33"),
        # Short, informal, English
        ("Jaktim", "31.75"), ("jaksel", "31.74"), ("Jabar", "32"), ("DKI Jakarta", "31"), ("Jogja", "34"), ("Kota Jogja", "34.71"),
        ("Solo", "33.72"), ("South Jakarta", "31.74"), ("West Java", "32"), ("NTB", "52"), ("Tangsel", "36.74"),
        # Blanks and dashes
        ("Palangka Raya", "62.71"), ("Bau-Bau", "74.72"), ("Tanjung Pinang", "21.72"), ("KOTA TANJUNGPINANG", "21.72"),
        # Within an address
        ("Ds. Sayung, Demak, Jateng", "33.21"), ("Ds Sayung Kab Demak Jateng", "33.21"), ("Cugenang, Cianjur", "32.03"),
        ("Kampung Melayu Jakarta Timur", "31.75"), ("Kec. Jatinegara Kota Jakarta Timur", "31.75"),
        ("Kel. Duri Kepa Kec. Kebon Jeruk Jakarta Barat Daerah Khusus Ibukota Jakarta", "31.73"),
        ("Banjar, Kalsel", "63.03"), ("Kota Batu, Jatim", "35.79"), ("Jawa Tengah - Demak", "33.21"),
        # Misspelt
        ("Kabupaten Semarng", "33.22"), ("Kab. Cianjr", "32.03"), ("Jakarta Selatn", "31.74"), ("Kab Tasikmalya", "32.06"),
        ("Kota Padang Sidempuan", "12.77"), ("Jawa Tenggah", "33"), ("Cianjr, Jabar", "32.03"), ("kabupten demk", "33.21"),
        # Provinces that were divided: today's code, whatever the old province
        ("Kab. Nabire, Papua", "94.01"), ("Kab. Sorong, Papua Barat", "96.01"), ("Merauke, Papua Selatan", "93.01"),
        # Of a city and its province the province surely holds what is meant
        ("Jambi", "15"), ("Kota Jambi", "15.71"),
    ],
)  # fmt: skip
def test_a_name_means_its_area(said, meant):
    assert code(said) == f"kemendagri:{meant}"


@pytest.mark.parametrize(
    "said",
    [
        "Bandung", "Bogor, Jawa Barat", "Semarang", "Banjar",  # a regency and a city
        "Batu", "Bone", "Poso",  # too short to be sure of
        "Kampung Melayu", "Desa Bandung", "Kelurahan Manggarai", "Jl. Surabaya", "Jati Padang", "Teluk Lingga",
        "Manggarai, Tebet", "Makasar", "Kenari", "Katapang", "barang", "samping", "banjir", "pasar", "rumah saya", "di sini",
        "Sumatera Utara, Jawa Barat", "Demak, Jawa Barat", "Kab. Demak, Kab. Kudus", "Gorontalo, Komodo, Manggarai Barat",
        "Kota Demak", "Kabupaten Jakarta Timur",  # no such thing
        "", "  ", ",,,", "12345", "🙂", "\u202e", "Kab.", "Kota", "Kabupaten Kabupaten", "3174",
    ],
)  # fmt: skip
def test_a_name_that_is_not_sure_means_none(said):
    assert find_area(said) is None


def test_every_listed_area_is_found_by_its_own_name():
    lost = []
    for area in vocabulary.known_areas():
        meant = vocabulary.to_scheme(str(area), "kemendagri")
        if meant is not None and code(area.name or "") != meant:
            lost.append((area.name, meant, code(area.name or "")))
    assert lost == []


@given(st.text(max_size=600))
def test_any_text_is_read(text):
    found = find_area(text)
    assert found is None or vocabulary.area("kemendagri", found.code.removeprefix("kemendagri:")) is not None


@given(
    st.sampled_from([area for area in vocabulary.known_areas() if area.scheme == "kemendagri" and area.level == 2]),
    st.data(),
)
def test_a_misspelt_regency_is_never_another(area, data):
    """One letter lost, doubled or swapped with its neighbour: it is found, or nothing is."""
    kind, _, name = str(area.name).partition(" ")
    at = data.draw(st.integers(1, len(name) - 1))
    wrong = data.draw(
        st.sampled_from(
            [
                name[:at] + name[at + 1 :],
                name[:at] + name[at] + name[at:],
                name[: at - 1] + name[at : at + 1] + name[at - 1] + name[at + 1 :],
            ]
        )
    )
    found = code(f"{kind} {wrong}, {vocabulary.area_name(f'kemendagri:{area.parent}')}")
    right = {str(area), f"kemendagri:{area.parent}", None}
    # A name may be one letter from another that is as near (Kabupaten Nias, Kabupaten Nias Barat are not).
    assert found in right


def test_official_rows_name_their_regency_by_code_and_the_gazetteer_agrees():
    """Every regency of BNPB's floods, by its name and province, against the BPS code of the same row."""
    with shared_file("bnpb-floods-2020-2021/events.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    counts: Counter[str] = Counter()
    wrong = []
    for row in rows:
        meant = vocabulary.to_scheme(f"bps:{row['regency_code_bps']}", "kemendagri")
        name = row["regency"] if row["regency"].startswith("KOTA ") else f"Kab. {row['regency']}"
        found = find_area(f"{name}, {row['province']}")
        if found is None:
            counts["none"] += 1
        elif found.code == meant:
            counts["right"] += 1
        elif meant is not None and found.level == 1 and vocabulary.within(meant, found.code):
            counts["province"] += 1
        else:
            wrong.append((name, row["province"], found.code, meant))
    print(f"of {len(rows)} rows: {dict(counts)}, wrong {len(wrong)}")
    assert wrong == []
    assert counts["right"] >= 0.98 * len(rows)


def test_names_of_villages_are_hardly_ever_taken_for_regencies():
    """PetaBencana's villages and sub-districts by their bare names, which is what people write: silence is right, the
    wrong regency is not."""
    with shared_file("petabencana/reports_2020_2021.csv").open(encoding="utf-8", newline="") as file:
        names = {
            (row[level], row["kab_code_bps"]) for row in csv.DictReader(file) for level in ("desa", "kecamatan")
            if row["kab_code_bps"] and row[level]
        }  # fmt: skip
    wrong = [
        (name, found) for name, bps in sorted(names)
        if (found := code(name)) and not vocabulary.within(vocabulary.to_scheme(f"bps:{bps}", "kemendagri") or "-", found)
    ]  # fmt: skip
    print(f"{len(wrong)} of {len(names)}: {wrong}")
    assert len(wrong) <= 0.012 * len(names)


# In a report


MakeClient = Callable[[Sequence[Service]], httpx.AsyncClient]


@pytest.mark.parametrize(
    ("location", "admin"),
    [
        ({"place": "Ds. Sayung, Kab. Demak"}, "kemendagri:33.21"),
        ({"place": "Kampung Melayu"}, None),
        ({"place": "Bandung"}, None),
        ({"place": "Kab. Demak", "admin": "bps:3174"}, "bps:3174"),  # what the sender says itself goes first
        ({"place": "Kab. Demak", "lon": 106.8, "lat": -6.2}, None),
    ],
)
async def test_a_report_with_a_place_name_alone_is_in_the_area_that_it_surely_means(
    make_client: MakeClient, make_db: Callable[[str], Database], location, admin
):
    client = patient(make_client([service]))
    answer = await client.post("/v1/reports", json={"text": "Banjir", "location": location})
    assert answer.status_code == 202
    assert answer.json()["needs_place"] is (admin is None and "lon" not in location)
    async with make_db("intake").tx() as tx:
        row = await tx.fetchrow("SELECT place, admin FROM report")
    assert (row["place"], row["admin"]) == (location["place"], admin)


@pytest.mark.parametrize(
    "admin", ["3174", 3174, "31.75.03", "bps 3174", "bps:", "BPS:3174", ["bps:3174"], {"bps": 3174}]
)
async def test_a_code_without_its_scheme_is_refused_in_words(make_client: MakeClient, admin):
    client = patient(make_client([service]))
    answer = await client.post("/v1/reports", json={"text": "Banjir", "location": {"admin": admin}})
    assert answer.status_code == 422
    (fault,) = answer.json()["errors"]
    assert fault["pointer"] == "/location/admin"
    assert "kemendagri:31.75.03" in fault["detail"]
    assert "pattern" not in answer.text
    batch = await client.post(
        "/v1/reports:batch", json=[{"text": "Banjir", "location": {"admin": admin}}], headers=bearer("field")
    )
    assert batch.json()["rejected"] == 1
    assert "kemendagri:31.75.03" in batch.text
