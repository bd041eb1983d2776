"""Two hundred texts that people with bad intent, bad luck or a strange keyboard send."""

from __future__ import annotations

MARKUP = (
    "<script>window.hit=1</script>",
    "<img src=x onerror='window.hit=1'>",
    "<svg onload=window.hit=1></svg>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "'\"><script>alert(1)</script>",
    "<a href='javascript:window.hit=1'>klik</a>",
    "javascript:window.hit=1",
    "<style>*{display:none!important}</style>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href='https://evil.example/'>",
    "<form action='https://evil.example'><button autofocus>kirim</button></form>",
    "<link rel=stylesheet href='https://evil.example/x.css'>",
    "</textarea></title></script><script>window.hit=1</script>",
    "<!-- <script>window.hit=1</script> -->",
    "{{constructor.constructor('window.hit=1')()}}",
    "${window.hit=1}",
    "&lt;script&gt;window.hit=1&lt;/script&gt;",
    "<math><mtext><table><mglyph><style><img src onerror=window.hit=1>",
    "<template shadowrootmode=open><slot onslotchange=window.hit=1></template>",
    "<details open ontoggle=window.hit=1>",
    "<input autofocus onfocus=window.hit=1>",
    "%3Cscript%3Ewindow.hit=1%3C/script%3E",
    "'; DROP TABLE report; --",
    '=HYPERLINK("https://evil.example","klik")',
    "__proto__",
)
WRITING = (
    "\u202eterbalik\u202c dan lurus",  # overrides of direction
    "\u202d\u202e\u202dganda",
    "\u2066terkurung\u2067tanpa akhir",  # isolates that are never closed
    "\u200b\u200c\u200d\ufeff",  # nothing to see
    "banjir\u200b\u200bdi\u200bsini" * 20,
    "\u0645\u0631\u062d\u0628\u0627 \u0641\u064a\u0636\u0627\u0646",  # from right to left
    "\u05e9\u05dc\u05d5\u05dd banjir \u05e9\u05dc\u05d5\u05dd",
    "Z\u0351\u036b\u0343\u036aa\u0368\u036e\u0346l\u0300\u0301\u0302g\u0303\u0304\u0305o\u0306\u0307" * 15,  # piled marks
    "\U0001f30a\U0001f6a8" * 60,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 40,  # families of joined emoji
    "\U0001f1ee\U0001f1e9" * 80,
    "\u6d2a\u6c34" * 200,
    "\ua9a7\ua9a4\ua9a7\ua9bf\ua9ab" * 10,  # Javanese script
    "\ufdfd" * 30,  # one very wide sign
    "\u3000" * 80 + "jauh",
    "a\tb\nc\r\nd\n\n\n\n\ne",
    "\u2028garis\u2029paragraf",
    "NULL", "undefined", "[object Object]", "-1", "1e309", "0x41", "\\u0041\\n",
)  # fmt: skip
LONG = (
    "a" * 10_000,  # no place to break a line
    "banjir " * 1_428,
    "https://" + "sangat-panjang." * 600 + "example/" + "x" * 900,
    "\u0e20\u0e31\u0e22" * 3_000,
    "W" * 3_000,
    "\n" * 300 + "akhir",
    "(" * 2_000 + ")" * 2_000,
    "\U0001f9d1\U0001f3fd\u200d\U0001f692" * 400,
)
OVERRIDES = ("\u202d", "\u202e")
"""The interface refuses these two where a program sends them: what people read would not be what it says."""


def texts() -> list[str]:
    """Two hundred different ones, each of which says its number, so that it can be found again."""
    kinds = [*MARKUP, *WRITING, *LONG]
    found = []
    for number in range(200):
        kind = kinds[number % len(kinds)]
        if number >= len(kinds):  # in company: markup between other kinds
            kind = f"{kinds[(number * 7) % len(kinds)][:3000]} {kind}"
        found.append(f"{mark(number)} {kind}"[:10_000])
    return found


def mark(number: int) -> str:
    """The word by which a text is found again."""
    return f"uji{number:03d}"
