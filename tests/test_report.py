"""The report in a real browser, and tables as text.

Pictures and plots are shown, nothing overflows on a narrow screen, and both colour schemes work.
"""

import functools
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

import eval as evaluation
from stylenet.metrics import plots, tables
from stylenet.metrics.tables import Table

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
# what the page says of itself: its width, its pictures and plots with a size, whether anything
# sticks out, its colours
PROBE = """
<script>
addEventListener("load", () => {
  const seen = [...document.images].filter(i => i.complete && i.naturalWidth > 0).length;
  const isSeen = s => s.getBoundingClientRect().width > 100;
  const plots = [...document.querySelectorAll("svg")].filter(isSeen).length;
  const style = getComputedStyle(document.body);
  const axis = getComputedStyle(document.querySelector("svg text, svg path, svg use")).color;
  const inside = document.documentElement.scrollWidth <= innerWidth;
  const tables = document.querySelectorAll("table").length;
  document.title = JSON.stringify({images: document.images.length, seen, plots, inside, tables,
    background: style.backgroundColor, ink: style.color, axis, width: innerWidth});
});
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, trained_run, image_folders, vgg19_file):
    """A report with all of its parts."""
    folder = tmp_path_factory.mktemp("report")
    content, style = image_folders
    command = [
        "--model",
        trained_run,
        "--model",
        trained_run,
        "--content",
        content,
        "--style",
        style,
        "--output",
        folder / "out",
    ]
    options = [
        "pairs.n=6",
        "images.resize_px=32",
        "metrics.cfsd_px=16",
        "metrics.timing_rounds=1",
        "oracle.iterations=2",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLENET_VGG19", str(vgg19_file))
        more = [
            "--alpha",
            "0.5,1",
            "--oracle",
            "1",
            "networks.download=false",
            "tracking.mode=disabled",
        ]
        assert evaluation.main([*map(str, command), *options, *more]) == 0
    return folder / "out/report.html"


def browse(page, folder, width, *flags):
    """The probe's findings on the page at one width."""
    probed = folder / "probed.html"
    probed.write_text(page.read_text().replace("</body>", PROBE))
    profile = folder / f"profile{width}{len(flags)}"
    # a window narrower than 500 pixels needs the new headless mode's emulation; an iframe of that
    # width does as well
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe src="probed.html" style="width:{width}px;height:900px;border:0" '
        'onload="setTimeout(() => document.title = this.contentDocument.title, 500)"></iframe>'
    )
    command = [
        CHROMIUM,
        *FLAGS,
        *flags,
        "--allow-file-access-from-files",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=5000",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", f"file://{frame}"], capture_output=True, text=True, timeout=120
    )
    import html
    import json

    return json.loads(
        html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL).group(1))
    )


@pytest.mark.slow
@pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium on this machine: install Debian's chromium to look at the report",
)
def test_report_in_a_browser(page, tmp_path):
    look = functools.partial(browse, page, tmp_path)
    wide, narrow, dark = (
        look(1200),
        look(360),
        look(1200, "--blink-settings=preferredColorScheme=0"),
    )
    for found in (wide, narrow, dark):
        assert (
            found["images"] == found["seen"] > 10 and found["plots"] == 3 and found["tables"] >= 7
        )
        assert found["inside"], f"the page is wider than {found['width']} pixels"
        assert found["axis"] == found["ink"]  # plots are drawn in the page's own ink
    assert narrow["width"] == 360 and wide["background"] == "rgb(255, 255, 255)"
    brightness = [sum(map(int, re.findall(r"\d+", dark[key])[:3])) for key in ("background", "ink")]
    assert brightness[0] < 200 < 500 < brightness[1]


@pytest.mark.slow
@pytest.mark.skipif(
    CHROMIUM is None,
    reason="no Chromium on this machine: install Debian's chromium to look at the report",
)
def test_report_is_not_blank(page, tmp_path):
    shot = tmp_path / "shot.png"
    command = [
        CHROMIUM,
        *FLAGS,
        f"--user-data-dir={tmp_path / 'p'}",
        "--window-size=1200,2400",
        f"--screenshot={shot}",
        f"file://{page}",
    ]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert (
        pixels.shape[0] == 2400
        and (pixels.min(2) < 128).mean() > 0.01
        and (pixels.max(2) - pixels.min(2) > 60).mean() > 0.005
    )


def test_without_matplotlib_the_plots_are_said_to_be_missing(monkeypatch):
    import builtins

    real_import = builtins.__import__

    def refuse(name, *arguments, **more):
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real_import(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (caption,) = plots.drawn_or_note({"x": lambda: "<svg>"})
    assert "not computed: needs matplotlib" in caption and "requirements-metrics.txt" in caption


def test_numbers_do_not_round_to_nothing():
    assert [tables.number(v, "style") for v in (0.1234, 0.0, 0.00012, -0.5)] == [
        "0.123",
        "0.000",
        "1.2e-04",
        "-0.500",
    ]


def test_best_is_marked_among_rivals_at_full_strength():
    def entry(name, kind, alpha, style, ssim):
        return {
            "name": name,
            "kind": kind,
            "alpha": alpha,
            "metrics": {"style": {"mean": style}, "ssim": {"mean": ssim}},
        }

    entries = [
        entry("copy", "control", None, 0.0, 1.0),
        entry("a", "model", 0.5, 0.1, 0.9),
        entry("a", "model", 1.0, 0.3, 0.5),
    ]
    entries.append(entry("b", "model", 1.0, 0.4, 0.6))
    assert tables.best_cells(entries, ["style", "ssim"], "mean") == {(2, 1), (3, 2)}
    assert tables.best_cells(entries[:3], ["style", "ssim"], "mean") == frozenset()


def test_markdown_and_latex_escape_what_they_must():
    table = Table("A_b", ["", "x"], [["m|n_1", "50%"]], frozenset({(0, 1)}))
    assert "m\\|n_1" in tables.markdown_table(table) and "**50%**" in tables.markdown_table(table)
    latex = tables.latex_table(table, "p & q")
    assert r"m|n\_1" in latex and r"\textbf{50\%}" in latex and r"p \& q" in latex


@pytest.mark.parametrize(
    "low, high, metric, expected",
    [
        (-2, -1, "style", "better"),
        (1, 2, "style", "worse"),
        (-1, 1, "style", "undecided"),
        (1, 2, "ssim", "better"),
    ],
)
def test_verdicts(low, high, metric, expected):
    assert (
        tables.verdict({"metric": metric, "mean": (low + high) / 2, "low": low, "high": high})
        == expected
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_compiles(page, tmp_path):
    body = (page.parent / "table.tex").read_text()
    (tmp_path / "t.tex").write_text(
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    )
    environ = os.environ | {"openout_any": "a"}
    subprocess.run(
        ["pdflatex", "-interaction=batchmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path,
        check=True,
        env=environ,
    )


def test_template_lies_beside_its_module():
    assert (ROOT / "stylenet/metrics/report.html").is_file()
