"""The vocabulary: what its files promise, and what its loader makes of the field's words and codes."""

import csv
import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import Point, shape

from schemas import vocabulary

FOLDER = Path(vocabulary.__file__).parent
CODE = re.compile(r"[a-z][a-z0-9_]*")
SECTORS = {
    "CCM",
    "ERY",
    "EDU",
    "SHL",
    "TEL",
    "FSC",
    "HEA",
    "LOG",
    "NUT",
    "PRO",
    "PRO-CPN",
    "PRO-GBV",
    "WSH",
}
GLIDE = set(re.findall("..", "CWCEDREQEPECFRFFFLHTINLSMSOTSTAVSSACTOTCTSVWVOWF"))


def shared(name: str) -> Path:
    """A file of the shared data folder, which is never part of the repository."""
    root = Path(os.environ.get("GOTONG_SHARED") or Path(__file__).parents[2] / ".." / "shared")
    path = root / "data" / name
    if not path.exists():
        pytest.skip(f"needs the shared data file {name} (set GOTONG_SHARED)")
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.csv")), ids=lambda path: path.name)
def test_every_file_is_rectangular_plain_utf8_without_stray_blanks(path: Path) -> None:
    with path.open(encoding="utf-8", newline="") as file:
        header, *body = list(csv.reader(file, strict=True))
    assert body
    for number, row in enumerate(body, start=2):
        assert len(row) == len(header), f"{path.name}:{number}"
        assert all(cell == cell.strip() for cell in row), f"{path.name}:{number}"


@pytest.mark.parametrize("name", ["items.csv", "skills.csv", "hazards.csv", "small_needs.csv"])
def test_codes_are_unique_lower_case_words(name: str) -> None:
    codes = [row["code"] for row in rows(FOLDER / name)]
    assert len(codes) == len(set(codes))
    assert all(CODE.fullmatch(code) for code in codes)


def test_no_code_is_both_an_item_and_a_skill_or_a_hazard() -> None:
    items, skills, hazards = (
        set(vocabulary.known_items()),
        set(vocabulary.known_skills()),
        set(vocabulary.known_hazards()),
    )
    assert not items & skills
    assert not (items | skills) & hazards


def test_every_item_and_skill_has_both_labels_a_unit_and_a_known_sector() -> None:
    entries: list[vocabulary.Item | vocabulary.Skill] = [*vocabulary.items().values(), *vocabulary.skills().values()]
    for entry in entries:
        assert entry.label_id and entry.label_en and entry.unit
        assert entry.sector in SECTORS, entry.code
    assert {skill.unit for skill in vocabulary.skills().values()} == {"person"}


def test_every_unit_in_use_can_be_said_in_both_languages() -> None:
    labelled = {row["unit"] for row in rows(FOLDER / "units.csv")}
    used = {entry.unit for entry in vocabulary.items().values()} | {"person"}
    assert used == labelled
    assert vocabulary.unit_label("portion") == "porsi"
    assert vocabulary.unit_label("portion", "en") == "portions"
    assert vocabulary.unit_label("barrel") == "barrel"


@pytest.mark.parametrize("name", ["items.csv", "skills.csv", "hazard_words.csv"])
def test_no_word_means_two_things_in_one_file(name: str) -> None:
    meaning: dict[str, str] = {}
    for row in rows(FOLDER / name):
        words = (
            [row["word"]]
            if "word" in row
            else [
                row["code"],
                row["label_id"],
                row["label_en"],
                *row["words"].split("|"),
            ]
        )
        for word in filter(None, words):
            plain = vocabulary._plain(word)
            assert meaning.setdefault(plain, row["code"]) == row["code"], f"{word!r} in {name}"


def test_a_hazard_word_that_is_also_a_label_keeps_the_labels_meaning() -> None:
    words = {vocabulary._plain(row["word"]): row["code"] for row in rows(FOLDER / "hazard_words.csv")}
    for hazard in vocabulary.hazards().values():
        for name in (hazard.code, hazard.label_id, hazard.label_en):
            assert words.get(vocabulary._plain(name), hazard.code) == hazard.code, name
            assert vocabulary.hazard_of(name) == hazard.code


def test_hazard_codes_are_of_the_published_forms() -> None:
    for hazard in vocabulary.hazards().values():
        assert hazard.glide is None or hazard.glide in GLIDE, hazard.code
        assert hazard.hips is None or re.fullmatch(r"(MH|GH|EN|BI|CH|ET|TL|SO)\d{4}", hazard.hips), hazard.code
    assert {row["code"] for row in rows(FOLDER / "hazard_words.csv")} <= set(vocabulary.known_hazards())


def test_small_needs_name_known_codes_and_whole_positive_limits() -> None:
    known = {*vocabulary.known_items(), *vocabulary.known_skills()}
    for row in rows(FOLDER / "small_needs.csv"):
        assert row["code"] in known
        assert vocabulary.small_limit(row["code"]) == int(row["limit"]) > 0


def test_what_has_no_limit_is_never_small() -> None:
    assert vocabulary.small_limit("excavator") == 0
    assert vocabulary.small_limit("heavy_equipment") == 0
    assert vocabulary.small_limit("a word of tomorrow") == 0


def test_an_unknown_word_is_let_through_and_never_raises() -> None:
    assert vocabulary.label("drone", "id") == "drone"
    assert vocabulary.unit("drone") is None
    assert vocabulary.sector("drone") is None
    assert vocabulary.hazard_of("meteor") is None
    assert vocabulary.item_of("drone") is None
    assert vocabulary.skill_of("") is None


@pytest.mark.parametrize(
    ("code", "indonesian", "english"),
    [
        ("boat", "Perahu", "Boat"),
        ("nurse", "Perawat", "Nurse"),
        ("flash_flood", "Banjir bandang", "Flash flood"),
    ],
)
def test_labels_come_in_both_languages(code: str, indonesian: str, english: str) -> None:
    assert vocabulary.label(code, "id") == vocabulary.label(code) == indonesian
    assert vocabulary.label(code, "en") == english


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("perahu karet", "rubber_boat"),
        ("Perahu", "boat"),
        ("TERPAL", "tarpaulin"),
        ("nasi bungkus", "ready_meal"),
        ("water", "water"),
    ],
)
def test_everyday_words_name_items(word: str, code: str) -> None:
    assert vocabulary.item_of(word) == code


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("dokter", "doctor"),
        ("Tim SAR", "search_and_rescue"),
        ("dapur umum", "kitchen"),
        ("boat-operator", "boat_operator"),
    ],
)
def test_everyday_words_name_skills(word: str, code: str) -> None:
    assert vocabulary.skill_of(word) == code


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("flood", "flood"),
        ("BANJIR", "flood"),
        ("BANJIR  BANDANG", "flash_flood"),
        ("Gelombang Pasang / Abrasi", "storm_surge"),
        ("GEMPABUMI", "earthquake"),
        ("Kebakaran Hutan dan Lahan", "wildfire"),
        ("FL", "flood"),
        ("FL-2024-000199-ESP", "flood"),
        ("EQ-2018-000156-IDN", "earthquake"),
        ("AC", "accident"),
        ("MH0604", "flood"),
        ("GH0101", "earthquake"),
        ("Hujan Lebat dan Petir", "thunderstorm"),
    ],
)
def test_the_words_of_other_systems_name_hazards(word: str, code: str) -> None:
    assert vocabulary.hazard_of(word) == code


@pytest.mark.parametrize("word", ["in", "to", "structure", "road", "", "  "])
def test_what_is_not_a_hazard_is_not_made_one(word: str) -> None:
    assert vocabulary.hazard_of(word) is None


def test_petabencanas_disaster_types_are_all_known() -> None:
    seen = {row["disaster_type"] for row in rows(shared("petabencana/reports_2020_2021.csv"))} - {""}
    assert seen
    assert {word for word in seen if vocabulary.hazard_of(word) is None} == set()


def test_bnpbs_event_types_are_all_known() -> None:
    seen = {row["event_type"] for row in rows(shared("bnpb-floods-2020-2021/events.csv"))}
    assert {vocabulary.hazard_of(word) for word in seen} == {"flood"}


@given(st.text(max_size=40))
def test_any_text_has_at_most_a_published_meaning(word: str) -> None:
    assert vocabulary.hazard_of(word) in {None, *vocabulary.known_hazards()}
    assert vocabulary.item_of(word) in {None, *vocabulary.known_items()}
    assert vocabulary.skill_of(word) in {None, *vocabulary.known_skills()}
    assert vocabulary.area("kemendagri", word) is None or vocabulary.area("kemendagri", word).code == word  # type: ignore[union-attr]


def test_what_is_loaded_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        vocabulary.items()["boat"] = vocabulary.items()["tent"]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        vocabulary.items()["boat"].unit = "ship"  # type: ignore[misc]


# Areas


def test_the_lists_hold_all_provinces_and_regencies() -> None:
    count = {(scheme, level): 0 for scheme in ("kemendagri", "bps") for level in (1, 2)}
    for area in vocabulary.known_areas():
        count[area.scheme, area.level] += 1
    assert count == {
        ("kemendagri", 1): 38,
        ("kemendagri", 2): 514,
        ("bps", 1): 34,
        ("bps", 2): 514,
    }


def test_every_regency_lies_in_a_listed_province_of_its_own_scheme() -> None:
    for area in vocabulary.known_areas():
        if area.level == 2:
            (province,) = vocabulary.parents(area.scheme, area.code)
            assert province.level == 1 and province.scheme == area.scheme
            assert area.code.startswith(province.code)
        else:
            assert vocabulary.parents(area.scheme, area.code) == ()


def test_the_crosswalk_is_one_to_one_over_all_regencies() -> None:
    regencies = [area for area in vocabulary.known_areas() if area.level == 2 and area.scheme == "kemendagri"]
    translated = {vocabulary.to_scheme(str(area), "bps") for area in regencies}
    assert len(translated) == 514 and None not in translated
    for area in regencies:
        bps = vocabulary.to_scheme(str(area), "bps")
        assert bps is not None and vocabulary.to_scheme(bps, "kemendagri") == str(area)
        twin = vocabulary.area(*vocabulary.split(bps))
        assert twin is not None and twin.type == area.type


def test_the_crosswalk_agrees_with_the_one_made_elsewhere() -> None:
    for row in rows(shared("admin-idn/crosswalk.csv")):
        assert vocabulary.to_scheme(f"kemendagri:{row['kemendagri_code']}", "bps") == f"bps:{row['bps_code']}"
        assert vocabulary.to_scheme(f"pcode:{row['pcode']}", "kemendagri") == f"kemendagri:{row['kemendagri_code']}"
    for row in rows(shared("admin-idn/crosswalk_unmatched.csv")):
        assert vocabulary.to_scheme(f"kemendagri:{row['kemendagri_code']}", "bps") is None


def test_equal_digits_are_not_taken_for_the_same_place() -> None:
    assert vocabulary.area_name("kemendagri:31.74") == "Kota Administrasi Jakarta Selatan"
    assert vocabulary.area_name("bps:3174") == "Kota Jakarta Barat"
    assert vocabulary.to_scheme("kemendagri:31.74", "bps") == "bps:3171"
    assert vocabulary.area_name("kemendagri:94") == "Papua Tengah"
    assert vocabulary.area_name("bps:94") == "Papua"
    assert vocabulary.to_scheme("kemendagri:94", "pcode") is None


def test_a_sub_district_or_village_is_known_by_its_regency() -> None:
    area = vocabulary.area("kemendagri", "31.75.03")
    assert area is not None
    assert (area.level, area.name, area.parent, area.listed) == (
        3,
        None,
        "31.75",
        False,
    )
    assert [parent.name for parent in vocabulary.parents("kemendagri", "31.75.03")] == [
        "Kota Administrasi Jakarta Timur",
        "Daerah Khusus Ibukota Jakarta",
    ]
    assert [parent.code for parent in vocabulary.parents("bps", "3204190005")] == [
        "3204190",
        "3204",
        "32",
    ]
    assert vocabulary.area_name("kemendagri:32.04.12.2001") == "Kabupaten Bandung"
    assert vocabulary.to_scheme("kemendagri:31.75.03", "bps") is None


@pytest.mark.parametrize(
    ("scheme", "code"),
    [
        ("kemendagri", "31.75.3"),
        ("kemendagri", "3175"),
        ("kemendagri", "31.99"),
        ("kemendagri", "31.99.01"),
        ("kemendagri", "31.75.03.1"),
        ("bps", "31.75"),
        ("bps", "1288"),
        ("bps", "3299010"),
        ("pcode", "3204"),
        ("iso", "ID-JB"),
        ("kemendagri", ""),
    ],
)
def test_a_code_that_is_not_listed_or_not_well_formed_is_unknown(scheme: str, code: str) -> None:
    assert vocabulary.area(scheme, code) is None
    assert vocabulary.parents(scheme, code) == ()


@pytest.mark.parametrize("code", ["32.04", "kemendagri:", ":32.04", ""])
def test_a_code_without_its_scheme_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="scheme:code"):
        vocabulary.split(code)


@pytest.mark.parametrize(
    ("inner", "outer", "answer"),
    [
        ("kemendagri:32.04", "kemendagri:32", True),
        ("kemendagri:32.04.12", "kemendagri:32.04", True),
        ("kemendagri:32", "kemendagri:32.04", False),
        ("bps:3204", "kemendagri:32.04", True),
        ("bps:3204190", "kemendagri:32.04", True),
        ("bps:3174", "kemendagri:31.74", False),
        ("bps:3174", "kemendagri:31", True),
        ("pcode:ID3204", "kemendagri:32", True),
        ("kemendagri:31.74", "bps:3171", True),
        ("bps:9401", "kemendagri:93", True),
        ("bps:9401", "kemendagri:91", False),
        ("kemendagri:93.01", "bps:94", True),
        ("isic:1", "kemendagri:32", False),
        ("isic:1", "isic:1", True),
    ],
)
def test_an_area_lies_in_another_also_across_schemes(inner: str, outer: str, answer: bool) -> None:
    assert vocabulary.within(inner, outer) is answer


def test_every_place_in_indonesia_has_a_province_point_there() -> None:
    for area in vocabulary.known_areas():
        point = vocabulary.province_point(str(area))
        if point is None:
            # The Papua and Papua Barat of 2020 as a whole: larger than what bears their names today.
            assert str(area) in {"bps:91", "bps:94"}
            continue
        lon, lat = point
        assert 95 < lon < 141.1 and -11.1 < lat < 6.1
        assert point == (round(lon, 2), round(lat, 2))


def test_a_province_point_lies_in_its_province() -> None:
    features = json.loads(shared("admin-idn/provinces_38.geojson").read_text(encoding="utf-8"))["features"]
    assert len(features) == 38
    for feature in features:
        point = vocabulary.province_point(f"kemendagri:{feature['properties']['kemendagri_2025']}")
        assert point is not None
        # 0.01 degrees of rounding may carry a point on a small island just over its coarse shore.
        assert shape(feature["geometry"]).buffer(0).distance(Point(point)) < 0.011


def test_units_are_converted_by_the_table_and_never_guessed() -> None:
    assert vocabulary.converted("rice", 2, "tonne") == 2000
    assert vocabulary.converted("rice", 7, "kg") == 7
    assert vocabulary.converted("rice", 2, "sack") is None
    assert vocabulary.converted("boat", 2, "dozen") is None
    assert vocabulary.units_of("mask") == ("piece", "dozen", "gross")
    assert vocabulary.serves("family_kit") == 5
    assert vocabulary.serves("excavator") is None


def test_tables_about_words_name_only_words_that_there_are() -> None:
    for name in ("conversions.csv", "serves.csv"):
        assert {row["code"] for row in rows(FOLDER / name)} <= set(vocabulary.items())
    for row in rows(FOLDER / "conversions.csv"):
        assert int(row["factor"]) > 1
        assert row["unit"] != vocabulary.unit(row["code"])
    assert set(vocabulary.skill_kinds()) <= set(vocabulary.skills())
    assert all(kind.insarag or kind.nims for kind in vocabulary.skill_kinds().values())


def test_indonesias_eight_sectors_are_mapped_to_ochas() -> None:
    ocha = {sector.code for sector in vocabulary.sectors() if sector.scheme == "ocha"}
    bnpb = [sector for sector in vocabulary.sectors() if sector.scheme == "bnpb"]
    no_clusters = {"MPC", "MS", "CSS", "OTH"}
    assert ocha == SECTORS | {"PRO-HLP", "PRO-MIN"} | no_clusters
    assert len(bnpb) == 8
    assert {code for sector in bnpb for code in sector.ocha} == ocha - no_clusters
