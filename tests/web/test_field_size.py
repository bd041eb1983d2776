"""How little of the field page is loaded."""

from __future__ import annotations

import gzip
import re

from tests.web.browser import STATIC, insist


def test_the_page_with_all_that_a_report_needs_is_at_most_fourteen_kilobytes() -> None:
    insist()
    html = (STATIC / "field.html").read_text()
    names = set(re.findall(r'(?:src|href)="/(assets/[^"]+\.(?:js|css))"', html))
    [program] = [name for name in names if name.endswith(".js")]
    [rest] = re.findall(r"\./(field-rest-[^`'\"]+\.js)", (STATIC / program).read_text())
    names.add(f"assets/{rest}")
    for part in re.findall(r"(?:from|import) ?[`'\"]\./([^`'\"]+\.js)[`'\"]", (STATIC / "assets" / rest).read_text()):
        names.add(f"assets/{part}")
    sizes = {name: len(gzip.compress((STATIC / name).read_bytes(), 9)) for name in ("field.html", *names)}
    assert len(sizes) >= 4
    assert sum(sizes.values()) <= 14_000, sizes
