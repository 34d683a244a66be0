"""The report: what it says, and how a browser shows it at a phone's and a desk's width."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import bayescale as bs
from bayescale.backtesting import Backtest
from bayescale.inference.diagnostics import Diagnostics
from bayescale.publishedfits import published_fits
from bayescale.reports import figures
from bayescale.reports.format import interval, law_mathml, number, percent
from tests.conftest import simulated_table
from tests.test_cli import run
from tests.test_plots import rounds_of

COMMAND = "bayescale report mine.csv -o mine.html --params 1e10 --tokens 2e11"


@pytest.fixture(scope="module")
def good() -> bs.Fit:
    table = simulated_table(rows=40, name="chinchilla")
    table = bs.RunTable(table.frame, table.meta.model_copy(update={"citation": "simulated"}))
    return bs.fit(table, method="fast", draws=300, seed=2)


@pytest.fixture(scope="module")
def failed(good) -> bs.Fit:
    """A fit whose diagnostics failed."""
    return replace(good, diagnostics=Diagnostics("fast", min_ess=20.0, k_hat=0.9))


def scores() -> Backtest:
    pit = np.linspace(0.02, 0.98, 25)
    parts = [
        pd.DataFrame({
            "method": m, "table": "t", "factor": 3.0, "pit": pit, "loss": 2.0, "median": 2.01, "crps": 0.01,
            "interval_score_90": 0.1, "log_density": 1.0, "low_90": 1.9, "high_90": 2.1, "passed": True,
        })
        for m in ("discrepancy", "law-only")
    ]  # fmt: skip
    return Backtest(pd.concat(parts))


@pytest.fixture(scope="module")
def compared(good) -> bs.Comparison:
    return bs.compare(good.table, ["chinchilla", "kaplan"], sensitivity=False, draws=250, method="fast")


@pytest.fixture(scope="module")
def page(failed, compared) -> str:
    return bs.report(
        failed,
        comparison=compared,
        tightening=rounds_of(),
        forecast=failed.forecast(params=[1e10, 2e10], tokens=[2e11, 4e11]),
        allocation=failed.allocate(compute=5.76e23),
        backtest=scores(),
        command=COMMAND,
    )


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Pages without figures, which take most of the time that a page does."""
    monkeypatch.setattr("bayescale.reports.page.figures", lambda *_: {})


@pytest.mark.usefixtures("undrawn")
def test_comparison_and_rounds_are_told_where_they_are_given(good, page):
    text = text_of(page)
    assert "Which law do the runs speak for: chinchilla, kaplan?" in text
    assert "The table decides for chinchilla over kaplan" in text
    assert "Target run trained" in text
    assert "Stopped: narrow" in text
    for name in ("evidence", "loo_difference", "rounds", "rounds_floor"):
        assert f'id="figure-{name}"' in page
    plain = bs.report(good)
    assert "Which law" not in plain
    assert "Rounds of planned runs" not in plain


def test_priors_are_stated_as_the_law_has_them(page):
    assert "LogNormal(alpha, 0.2)" in text_of(page)


def text_of(html: str) -> str:
    class Text(HTMLParser):
        pieces: tuple[str, ...] = ()

        def handle_data(self, data: str) -> None:
            self.pieces += (data,)

    parser = Text()
    parser.feed(html)
    return re.sub(r"\s+", " ", "".join(parser.pieces))


def test_numbers_are_written_for_people():
    shown = [
        text_of(str(number(x))) for x in (1.8949, 70e9, 1e21, 0.0034567, 3.2e-7, 2085.43, -0.5, 0, 41372.6)
    ]
    assert shown == ["1.895", "7 × 1010", "1021", "0.003457", "3.2 × 10−7", "2,085", "−0.5000", "0", "41,373"]
    assert text_of(str(number(float("nan")))) == "–"
    # Powers of ten from a million on, and below a thousandth.
    shown = [text_of(str(number(x))) for x in (999_999, 1.5e6, 0.001, 0.0009)]
    assert shown == ["999,999", "1.5 × 106", "0.001000", "9 × 10−4"]
    assert [percent(x) for x in (0.9, 0.004, float("nan"))] == ["90%", "0%", "–"]
    shown = [text_of(str(interval(*ends))) for ends in ((1.9, 2.1), (2e10, 5e10), (2e9, 5e10))]
    assert shown == ["1.900–2.100", "2–5 × 1010", "2 × 109–5 × 1010"]


def test_law_is_typeset_without_javascript():
    from bayescale.laws import BUILTIN

    math = law_mathml(BUILTIN["chinchilla"])
    assert math.startswith("<math")
    assert text_of(math) == "L(N,D)=ANα+BDβ+E"


def test_page_answers_what_was_asked_and_says_how_to_make_it_again(page, failed):
    text = text_of(page)
    row = failed.forecast(params=[1e10, 2e10], tokens=[2e11, 4e11]).summary().iloc[0]
    assert f"{row['loss_90%_low']:.4g} and {row['loss_90%_high']:.4g} nats/token" in text
    assert "How should compute be split" in text
    assert "Compute-optimal run for 5.76 × 1023 FLOP" in text
    for words in ("arXiv:2404.10102", "besiroglu", "LogNormal(0.4, 0.35)", COMMAND, "numpy 2", "seed2"):
        assert words in text, words
    assert "90% band held" in text
    from hashlib import sha256

    assert sha256(failed.table.frame.to_csv(index=False).encode()).hexdigest() in text


@pytest.fixture(scope="module")
def close(compared) -> bs.Comparison:
    """The same laws a nat apart, so that probabilities are no stacking weights."""
    best, other = compared.labels
    logs = {best: compared.evidences[best].log, other: compared.evidences[best].log - 1}
    return replace(
        compared, evidences={n: replace(compared.evidences[n], log=log) for n, log in logs.items()}
    )


@pytest.fixture(scope="module")
def tables(good, close) -> dict[str, list[list[str]]]:
    """Rows of cells by section, of a page that is not drawn; in its last section the sentences."""
    asked = {
        "forecast": good.forecast(params=1e10, tokens=2e11),
        "allocation": good.allocate(compute=[1e22, 5.76e23]),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bayescale.reports.page.figures", lambda *_: {})
        html = bs.report(
            good, comparison=close, tightening=rounds_of(), backtest=scores(), command=COMMAND, **asked
        )
    found: dict[str, list[list[str]]] = {"": [[text_of(html)]]}
    for name, section in re.findall(r'<section id="(\w+)">(.*?)</section>', html, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
        found[name] = [
            [text_of(c).strip() for c in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", r, re.DOTALL)] for r in rows
        ]
    return found


def shown(*values, digits=4) -> list[str]:
    """Numbers, and pairs of them as intervals, as the page has them."""
    return [
        text_of(str(interval(*value) if isinstance(value, tuple) else number(value, digits)))
        for value in values
    ]


def test_a_forecasts_numbers_stand_in_their_places(good, tables):
    row = good.forecast(params=1e10, tokens=2e11).summary().iloc[0]
    for cells, name in zip(tables["forecast"][1:], ("expected_loss", "loss"), strict=True):
        bands = [(row[f"{name}_{w}_low"], row[f"{name}_{w}_high"]) for w in ("50%", "80%", "90%")]
        assert cells[1:] == shown(row[name], *bands)


def test_an_allocations_numbers_stand_in_their_places(good, tables):
    rows = good.allocate(compute=[1e22, 5.76e23]).summary().set_index(["budget", "quantity"])
    expected = []
    for budget in (0, 1):
        n, d = (shown(rows.loc[(budget, q), "median"], digits=2)[0] for q in ("params", "tokens"))
        assert f"about {n} parameters on {d} tokens" in tables[""][0][0]
        for quantity in ("params", "tokens", "tokens_per_param", "loss"):
            row = rows.loc[(budget, quantity)]
            expected.append(
                shown(row["median"], (row["50%_low"], row["50%_high"]), (row["90%_low"], row["90%_high"]))
            )
    assert [cells[1:] for cells in tables["allocation"] if cells[1:] != ["median", "50%", "90%"]] == expected


def test_parameters_ranges_and_published_values_stand_in_their_places(good, tables):
    ranges = {cells[0]: cells[1:] for cells in tables["table"]}
    for name in ("params", "tokens", "loss"):
        column = good.table.column(name)
        (found,) = (cells for title, cells in ranges.items() if title.startswith(name))
        assert found == shown(column.min(), column.max())
    rows = {cells[0]: cells[1:] for cells in tables["parameters"]}
    draws = good.parameters
    for name in ("alpha", "beta", "noise_sd"):
        low, middle, high = np.quantile(draws[name], [0.05, 0.5, 0.95])
        assert rows[name] == shown(middle, (low, high))
    names = ["E", "A", "B", "alpha", "beta"]
    assert rows["this fitmedian"] == shown(*(np.median(draws[name]) for name in names))
    constants = published_fits()["besiroglu"].constants
    assert rows["besiroglu"] == [f"{constants[name]:g}" for name in names]


def test_a_comparisons_numbers_stand_in_their_places(close, tables):
    summary = close.summary()
    for cells, (name, row) in zip(tables["comparison"][1:], summary.iterrows(), strict=True):
        assert cells[0] == f"{name}{row['parameters']} parameters"
        evidence = f"{row['log_evidence']:.2f} ± {shown(row['error'], digits=2)[0]}"
        assert cells[1] == f"{row['log_bayes_factor']:.1f}{evidence}"
        assert cells[2] == percent(row["probability"])
        loo = f"{row['elpd_difference']:.1f}± {shown(row['difference_se'], digits=2)[0]}"
        assert cells[3:] == [loo, *shown(row["stacking_weight"], digits=2)]
    assert "The laws are compared without a discrepancy" in tables[""][0][0]


def test_rounds_and_scores_stand_in_their_places(tables):
    rounds = [
        ["0", "6", "0", *shown((1.2, 1.3)), "0.100", "–"],
        ["1", "9", *shown(2e12, digits=3), *shown((1.23, 1.27)), "0.0400", "0.0500"],
    ]
    assert tables["tightening"][1:] == rounds
    # Of 25 even places in (.02, .98), 13 are within .25 of the middle and 23 within .45; 2 nats +- .1 are 5%.
    expected = ["1", "52%", "92%", "0.50%", "5.0%"]
    assert [cells[1:] for cells in tables["backtest"][1:]] == [expected, expected]


def test_figures_are_drawn_of_what_they_are_called(good, monkeypatch):
    drawn = []
    wanted = ("allocation_params", "allocation_tokens", "rounds", "rounds_floor")
    monkeypatch.setattr(figures, "_drawn", lambda name, make: make() if name in wanted else None)
    for name in ("plot_allocation", "plot_rounds"):
        monkeypatch.setattr(
            f"bayescale.plots.{name}", lambda of, *what, **how: drawn.append((*what, *how.values()))
        )
    allocation = good.thinned(50).allocate(compute=[1e22, 1e23, 1e25])
    figures.figures(good, None, allocation, None, None, rounds_of())
    middle = pytest.approx(1e23)
    assert drawn == [("params", middle), ("tokens", middle), (), ("floor",)]


def test_checksum_survives_saving_and_loading(failed, tmp_path):
    failed.save(tmp_path / "fit.nc")
    loaded = bs.load_fit(tmp_path / "fit.nc")
    assert loaded.table.frame.to_csv(index=False) == failed.table.frame.to_csv(index=False)


@pytest.mark.usefixtures("undrawn")
def test_failed_diagnostics_stand_on_top(page, failed, good):
    assert not failed.diagnostics.passed
    body = text_of(page[page.index("<body>") :])
    assert body.strip().startswith("Do not rely on this report")
    assert failed.diagnostics.failures[0] in body
    assert good.diagnostics.passed
    page = bs.report(good)
    assert "Do not rely" not in page
    assert "Every gate passed" in page


def test_page_is_self_contained_and_every_figure_has_caption_and_alternative_text(page):
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]*"', page)
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert len(figures) == 15
    for figure in figures:
        assert re.search(r'<img alt="\w[^"]{10,}"', figure)
        assert len(re.search(r"<figcaption>(.*?)</figcaption>", figure, re.DOTALL)[1]) > 60


@pytest.mark.usefixtures("undrawn")
def test_text_from_tables_cannot_break_the_page(failed):
    table = bs.RunTable(failed.table.frame, bs.TableMeta(name="x", title="<script>alert(1)</script>"))
    assert "<script" not in bs.report(replace(failed, table=table))


def test_law_of_one_input_is_reported_too():
    table = simulated_table(rows=20)
    fit = bs.fit(table, "power-compute-floor", method="fast", discrepancy=False, draws=300)
    page = bs.report(fit, forecast=fit.forecast(compute=1e23))
    assert "figure-bands" in page
    assert "figure-isoflop" not in page
    assert "10<sup>23</sup>" in page


def test_command_writes_the_page_and_says_a_bad_place_before_it_fits(failed, tmp_path):
    failed.save(tmp_path / "fit.nc")
    asked = ("--params", "1e10", "--tokens", "2e11", "--compute", "1e22")
    done = run("report", tmp_path / "fit.nc", "-o", tmp_path / "r.html", *asked)
    assert done.returncode == 1, done.stderr
    assert "do not rely on this fit" in done.stdout
    text = text_of((tmp_path / "r.html").read_text())
    assert "--compute 1e22" in text
    assert "No backtest was made" in text
    done = run("report", "chinchilla", "-o", tmp_path / "absent" / "r.html")
    assert done.returncode == 2
    assert "cannot write here" in done.stderr
    assert "Fitting" not in done.stderr


def test_a_saved_fits_priors_are_those_of_its_comparison(tmp_path):
    fit = bs.fit(
        simulated_table(rows=20), priors={"E": "LogNormal(2.5, 0.02)"}, discrepancy=False, method="fast"
    )
    usual = bs.fit(simulated_table(rows=20), discrepancy=False, method="fast")
    assert abs(fit.evidence.log - usual.evidence.log) > 2
    fit.save(tmp_path / "fit.nc")
    run("report", tmp_path / "fit.nc", "-o", tmp_path / "r.html", "--laws", "chinchilla,kaplan-floor")
    found = re.findall(r"(-?\d+\.\d\d) ± 0?\.\d+", text_of((tmp_path / "r.html").read_text()))
    assert min(abs(float(log) - fit.evidence.log) for log in found[-2:]) < 0.2


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_browser_shows_it_whole(browser, page, tmp_path, width):
    file = tmp_path / "report.html"
    file.write_text(page, "utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 900})
    said, asked = [], []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    assert said == []
    assert [u for u in asked if not u.startswith(("data:", file.as_uri()))] == []
    images = tab.eval_on_selector_all(
        "img", "all => all.map(i => [i.naturalWidth, i.getBoundingClientRect()])"
    )
    assert len(images) == 15
    for natural, box in images:
        assert natural > 100
        assert box["width"] > 300
        assert box["right"] <= width
    wide = tab.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll('.wide, table, p, math')]
            .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display != 'inline')
            .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert wide == []
    # Formulas may scroll sideways; up and down they would be cut off.
    heights = tab.eval_on_selector_all("math", "all => all.map(e => [e.scrollHeight, e.clientHeight])")
    assert heights
    assert all(inside <= seen for inside, seen in heights), heights
    tab.close()


def test_it_prints(browser, page, tmp_path):
    (tmp_path / "report.html").write_text(page, "utf-8")
    tab = browser.new_page()
    tab.goto((tmp_path / "report.html").as_uri())
    pdf = tab.pdf(prefer_css_page_size=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 4 <= pages <= 18
    tab.close()
