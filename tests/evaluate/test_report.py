"""The report as text: what a run did, what is drawn, what is escaped, what is said."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from support import reports
from support.golden import GOLDEN
from trainserve.evaluate.report import axes
from trainserve.evaluate.report.chart import POINTS, Series, line_chart
from trainserve.evaluate.report.heatmap import clustered, heat_map, step_of
from trainserve.evaluate.report.history import history, thinned
from trainserve.evaluate.report.html import Html, data_block, element, name, printable, shortened
from trainserve.evaluate.report.interval import wilson
from trainserve.evaluate.report.page import body, page, source
from trainserve.evaluate.report.summary import meaning, numbers

pytestmark = pytest.mark.slow

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


class Elements(HTMLParser):
    """Every element with its attributes, and all text outside of script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == [], f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "hr", "input", "link"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in {"script", "style"}:
            self.words.append(data)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval(right: int, total: int, low: float, high: float) -> None:
    """The last one is the example of Newcombe 1998, "Two-sided confidence intervals for the single proportion"."""
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


def test_of_steps_made_twice_the_later_ones_count() -> None:
    found = history(reports.events())
    assert [step.step for step in found.steps] == list(range(1, 61))
    assert all(step.loss == pytest.approx(2.3 / (1 + step.step / 15), abs=1e-4) for step in found.steps)
    assert [epoch.epoch for epoch in found.epochs] == [1, 2, 3, 4, 5, 6]
    assert [(mark.kind, mark.step, mark.epoch) for mark in found.marks] == [("resumed", 30, 3.0)]
    # Without the 100 s in which nothing ran: 30 + 5 steps and 3 validations, then 30 and 3.
    assert found.seconds == 77
    assert found.best is not None
    assert found.best.epoch == 6


def test_an_interrupted_run_keeps_what_it_did_and_one_that_began_again_forgets_it() -> None:
    cut = reports.events()[:38]  # in the fourth epoch
    found = history(cut)
    assert found.steps[-1].step > 30
    assert found.steps[-1].loss == pytest.approx(2.3 / (1 + found.steps[-1].step / 15) + 0.5, abs=1e-4)
    again = history([*cut, cut[0], cut[1]])
    assert [step.step for step in again.steps] == [1]
    assert again.epochs == ()
    assert [mark.kind for mark in again.marks] == ["restarted"]


def test_events_that_lack_numbers_are_passed_over() -> None:
    found = history([{"time": 1.0, "kind": "step"}, {"time": 2.0, "kind": "epoch", "epoch": 1}])
    assert (found.steps, found.epochs, found.best) == ((), (), None)
    assert history([]).seconds == 0


def test_many_points_become_means_of_neighbours() -> None:
    points = [(float(x), float(x)) for x in range(10_000)]
    found = thinned(points, 400)
    assert len(found) == 400
    assert found[0] == (12.0, 12.0)
    assert sum(y for _, y in found) / 400 == pytest.approx(4999.5)
    assert thinned(points[:400], 400) == points[:400]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1.0]),
        (0.37, 0.42, [0.36, 0.38, 0.4, 0.42]),
        (5, 5, [4, 6, 8, 10]),
        (0, 0, [0, 0.5, 1]),
        (-3, 17, [-5, 0, 5, 10, 15, 20]),
    ],
)
def test_ticks_are_round_and_cover_the_range(low: float, high: float, expected: list[float]) -> None:
    found = axes.ticks(low, high)
    assert found == pytest.approx(expected)
    assert found[0] <= low <= high <= found[-1]


def test_numbers_as_people_read_them() -> None:
    values = (0, 0.02134, 1.3512, 148.0, 12400.4, 5e-5, -2.5, 0.1 + 0.2, 6e5, 1.25e6, 3e20)
    assert [axes.number(value) for value in values] == [
        "0", "0.02134", "1.351", "148", "12,400", "5e-05", "-2.5", "0.3", "600 k", "1.25 M", "3e+20",
    ]  # fmt: skip
    assert [axes.share(value) for value in (0.978, 0.5, 1, 0.9999, 0.0001, 0)] == [
        "97.8 %", "50 %", "100 %", "99.9 %", "< 0.1 %", "0 %",
    ]  # fmt: skip


def test_text_is_escaped_and_what_cannot_be_seen_is_spelt_out() -> None:
    assert element("p", "<b>", title='"&', aria_label="x") == '<p title="&quot;&amp;" aria-label="x">&lt;b&gt;</p>'
    assert element("p", Html("<b>")) == "<p><b></p>"
    assert printable("\u202egnorw \udcff\x07\n") == "\\u202egnorw \\udcff\\x07\n"
    assert printable("می\u200cخواهم 👩\u200d🌾") == "می\u200cخواهم 👩\u200d🌾"
    assert "</script>" not in data_block({"x": "</script><!--"}, class_="a")[:-9]
    assert json.loads(re.sub(r"<[^>]*>", "", data_block(["</script>"]))) == ["</script>"]
    assert name("a" * 60, 10) == f'<bdi title="{"a" * 60}">aaaaaa…aaa</bdi>'
    assert shortened("short", 5) == "short"


def test_a_chart_has_its_points_its_ticks_and_its_words() -> None:
    chart = line_chart(
        "Loss",
        [Series("training", [(k / 100, 2 - k / 1000) for k in range(1000)]), Series("empty", [])],
        x_label="epoch",
        x_end=20,
    )
    elements = Elements(chart)
    (block,) = re.findall(r'<script type="application/json" class="points">(.*?)</script>', chart)
    (series,) = json.loads(block)["series"]
    assert len(series["points"]) == POINTS
    (curve,) = [attrs["d"] for tag, attrs in elements.found if tag == "path"]
    assert curve is not None
    assert len(curve.split("L")) == POINTS
    assert "20" in elements.words  # the axis goes on to the end that is planned
    (label,) = [attrs["aria-label"] for tag, attrs in elements.found if tag == "svg" and attrs.get("role") == "img"]
    assert label is not None
    assert label.startswith("Loss: training from 2 to 1.002")
    assert f"Each of {POINTS} points is the mean of its neighbours." in elements.words
    assert "Nothing yet." in line_chart("Loss", [], x_label="epoch")


def test_the_heat_map_draws_each_cell_that_is_not_zero_once() -> None:
    matrix = np.array([[8, 2, 0], [0, 10, 0], [1, 0, 99]])
    text = heat_map(matrix, ["a", "b", "c"])
    cells = [attrs for tag, attrs in Elements(text).found if tag == "path"]
    assert sorted((attrs["class"], (attrs["d"] or "").count("M")) for attrs in cells) == [
        ("hit h7", 3), ("miss h1", 1), ("miss h5", 1),
    ]  # fmt: skip
    (block,) = re.findall(r'class="cells">(.*?)</script>', text)
    found = json.loads(block)
    assert found["rows"] == [[[0, 8], [1, 2]], [[1, 10]], [[0, 1], [2, 99]]]
    assert found["support"] == [10, 10, 100]
    assert "most often a is taken for b: 2 times, 20 %" in text
    assert [step_of(share) for share in (0.001, 0.01, 0.011, 0.5, 1.0)] == [1, 1, 2, 6, 7]


def test_confused_classes_become_neighbours() -> None:
    matrix = np.eye(40, dtype=np.int64) * 10
    for left, right in ((0, 39), (5, 20)):
        matrix[left, right] = matrix[right, left] = 5
    order = clustered(matrix)
    assert sorted(order) == list(range(40))
    for left, right in ((0, 39), (5, 20)):
        assert abs(order.index(left) - order.index(right)) == 1
    matrix[3] = 0  # a class without pictures
    assert sorted(clustered(matrix)) == list(range(40))


def test_the_body_of_a_report(update_golden: bool) -> None:
    """Whole, without pictures: what a change of the page changes."""
    text = body([reports.made_up(3, pictures=False)], MADE)
    lines = re.sub(
        r"(<(?:p|li|tr|h\d|section|figure|table|dt|path|text|rect|nav|svg|script|details)[ >])", r"\n\1", text
    )
    path = GOLDEN / "report-three-classes" / "body.html"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{lines.strip()}\n", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == f"{lines.strip()}\n", "if that is meant, run with --update-golden"


@pytest.mark.parametrize("count", [3, 9, 200])
def test_a_page_asks_nothing_of_the_network_and_no_name_becomes_markup(count: int) -> None:
    text = page([reports.made_up(count)], MADE)
    assert len(text) < 5_000_000
    elements = Elements(text)
    assert [tag for tag, attrs in elements.found if tag == "script" and attrs.get("type") != "application/json"] == [
        "script"
    ]
    for tag, attrs in elements.found:
        assert not [key for key in attrs if key == "style" or key.startswith("on")], f"{tag} {attrs}"
        for key in ("src", "href", "xlink:href", "action", "data", "srcset"):
            value = attrs.get(key)
            assert value is None or value.startswith(("data:image/", "#")), f"{tag} {key}={value}"
    assert "http" not in source("page.css") + source("page.js").replace("http://www.w3.org/2000/svg", "")
    assert "\u202e" not in text
    if count > 3:
        said = "".join(elements.words)
        assert "<script>alert(1)</script>" in said
        assert "كلب أسود كبير" in said
    policy = next(attrs["content"] for tag, attrs in elements.found if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_headings_go_down_by_one_and_links_lead_somewhere() -> None:
    for made in ([reports.made_up(3)], [reports.made_up(3, name="a"), reports.made_up(3, name="b", seed=1)]):
        found = Elements(page(made, MADE)).found
        levels = [int(tag[1]) for tag, _ in found if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
        ids = [attrs["id"] for _, attrs in found if "id" in attrs]
        assert len(ids) == len(set(ids))
        links = {(attrs["href"] or "")[1:] for tag, attrs in found if tag == "a"}
        assert links <= set(ids)
        assert all(attrs.get("alt") for tag, attrs in found if tag == "img")


def test_several_runs_are_laid_over_each_other_with_what_differs() -> None:
    made = [reports.made_up(12, name="first"), reports.made_up(12, name="second", seed=3, lr=0.02, pictures=False)]
    text = page(made, MADE)
    words = Elements(text).words
    assert {"train.lr", "0.1", "0.02", "Runs"} <= set(words)
    assert "train.epochs" in words  # in the settings of each, but not among the differences
    table = text[text.index("Settings that differ") : text.index("Settings that differ") + 600]
    assert "train.lr" in table
    assert "train.epochs" not in table
    blocks = [json.loads(block) for block in re.findall(r'class="points">(.*?)</script>', text)]
    assert [series["name"] for series in blocks[0]["series"]] == ["first", "second"]
    assert any("overlaps" in word or "do not overlap" in word for word in words)


def test_what_a_result_means_in_words() -> None:
    said = " ".join(meaning(reports.made_up(3)))
    assert "the 95 % confidence interval (Wilson) is 64.6 % to 85.6 %" in said
    assert "60 pictures are few" in said
    assert "chosen by these same pictures" in said
    assert "Always answering the commonest class (species 000) would be right in 33.3 %" in said
    assert "still getting better at the end" in said


def test_the_numbers_are_plain_json() -> None:
    (found,) = json.loads(json.dumps(numbers([reports.made_up(3)]), allow_nan=False))
    assert found["top1"] == {
        "right": 46, "pictures": 60, "share": pytest.approx(46 / 60), "low": pytest.approx(0.6456, abs=1e-3),
        "high": pytest.approx(0.8556, abs=1e-3),
    }  # fmt: skip
    assert len(found["curves"]["steps"]) == 60
    assert np.array(found["evaluation"]["confusion"]).sum() == 60
    assert {"data", "settings", "environment", "lineage", "missing"} <= found.keys()


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance of #rrggbb."""
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def schemes() -> list[dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", source("page.css"), re.DOTALL)
    assert len(blocks) == 3  # light, dark, paper
    return [
        {
            key: "#" + "".join(c * 2 for c in v[1:]) if len(v) == 4 else v
            for key, v in re.findall(r"--([\w-]+): (#\w+)", b)
        }
        for b in blocks
    ]


@pytest.mark.parametrize("scheme", range(3))
def test_colours_have_the_contrast_of_wcag_aa(scheme: int) -> None:
    colours: dict[str, Any] = schemes()[scheme]
    for text in ("text", "quiet", "accent", "good", "busy", "bad"):
        for back in ("page", "surface"):
            assert contrast(colours[text], colours[back]) >= 4.5, f"{text} on {back}"
    assert contrast(colours["text"], colours["warn-back"]) >= 4.5
    for line in ("s0", "s1", "s2", "s3", "s4", "s5", "axis"):
        assert contrast(colours[line], colours["surface"]) >= 3, line
    # Counts in the cells of the heat map, whose colour lies over the page's with the opacity of its step.
    opacity = dict(re.findall(r"\.h(\d) \{ fill-opacity: ([\d.]+); \}", source("page.css")))
    assert len(opacity) == 7
    for kind in ("hit", "miss"):
        for step, share in opacity.items():
            cell = mixed(colours[kind], colours["page"], float(share))
            text = colours[{"6": "on6", "7": "on"}.get(step, "text")]
            assert contrast(text, cell) >= 4.5, f"{kind} {step}: {contrast(text, cell):.2f}"


def mixed(over: str, under: str, share: float) -> str:
    pairs = [(int(over[k : k + 2], 16), int(under[k : k + 2], 16)) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)
