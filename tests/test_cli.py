"""The command line as a user meets it: a subprocess, its output, its exit code."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

import bayescale as bs
from bayescale.catalogue import DATA
from bayescale.cli import main
from bayescale.cli.options import names, size
from bayescale.tablefiles import write_runs
from tests.conftest import simulated_table


def run(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "bayescale", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
        check=False,
    )


@pytest.fixture(scope="module")
def runs_csv(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mine.csv"
    write_runs(simulated_table(rows=30), path)
    return path


@pytest.fixture(scope="module")
def fit_nc(runs_csv):
    path = runs_csv.with_suffix(".nc")
    done = run("fit", runs_csv, "--no-discrepancy", "-o", path, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["diagnostics"]["passed"]
    assert 1.6 < report["parameters"]["E"]["mean"] < 2.0
    return path


def test_help_loads_nothing_heavy():
    heavy = ("pymc", "pandas", "numpy", "sympy", "matplotlib")
    code = f"import sys, bayescale.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    done = run("--help")
    assert done.returncode == 0
    for command in ("tables", "fit", "forecast", "allocate", "check"):
        assert command in done.stdout


def test_tables_are_listed_and_shown():
    listed = {row["name"]: row["state"] for row in json.loads(run("tables", "--json").stdout)}
    assert listed["chinchilla"] == "bundled"
    assert "gadre-c4" in listed
    assert "arXiv:2203.15556" in run("tables", "show", "chinchilla").stdout
    assert json.loads(run("tables", "show", "opt", "--json").stdout)["runs"] == 6


def test_pull_then_use_by_name(published, tmp_path):
    place = {"BAYESCALE_CACHE": str(tmp_path)}
    assert "pull gadre-c4" in run("check", "gadre-c4", **place).stderr
    done = run("tables", "pull", "gadre-c4", "--from", published, **place)
    assert done.stdout == "gadre-c4: 34 runs, checksum verified\n"
    assert json.loads(run("check", "gadre-c4", "--json", **place).stdout)["runs"] == 34


def test_check_prints_codes_and_citations():
    done = run("check", "cerebras-gpt")
    assert done.returncode == 0
    assert "collinear" in done.stdout
    assert "arXiv:" in done.stdout


def test_forecast_and_allocate_from_a_saved_fit(fit_nc, tmp_path):
    done = run("forecast", fit_nc, "--params", "70B", "--tokens", "1.4e12", "--json",
               "--plot", tmp_path / "f.svg")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    target = report["targets"][0]
    assert (target["params"], target["tokens"]) == (70e9, 1.4e12)
    assert report["unit"] == "nats/token"
    assert target["loss_90%_low"] < target["loss"] < target["loss_90%_high"]
    assert report["decades_outside"][0]["tokens"] > 0
    assert (tmp_path / "f.svg").read_text().startswith("<?xml")
    text = run("forecast", fit_nc, "--params", "1e9", "--tokens", "2e10").stdout
    assert "nats/token" in text
    assert "expected loss" in text
    done = run("allocate", fit_nc, "--compute", "1e21", "--compute", "1e22")
    assert done.stdout.count("tokens_per_param") == 2
    assert "FLOP" in done.stdout
    done = run("allocate", fit_nc, "--loss", "2.2", "--served-tokens", "2T")
    assert "lifetime_compute" in done.stdout


def test_a_backtest_is_of_the_noise_priors_and_groups_that_a_fit_is_given(runs_csv, tmp_path):
    command = ("backtest", runs_csv, "--splits", "10", "--against", "law-only")
    own = ("--noise", "normal", "--prior", "E=LogNormal(1.8, 0.02)", "--group-effect", "params")
    place = {"BAYESCALE_CACHE": str(tmp_path)}
    plain = json.loads(run(*command, "--json", **place).stdout)
    asked = json.loads(run(*command, *own, "--json", **place).stdout)
    assert (plain["noise"], plain["priors"], plain["group_effect"]) == ("student-t", {}, None)
    assert (asked["noise"], asked["group_effect"]) == ("normal", "params")
    assert asked["priors"] == {"E": "LogNormal(1.8, 0.02)"}
    for one, other in zip(plain["overall"], asked["overall"], strict=True):
        assert one["half_width_%"] != other["half_width_%"]
    said = run(*command, *own, **place).stdout
    assert "fits: chinchilla, normal noise, prior E=LogNormal(1.8, 0.02), offsets by params\n" in said


def test_sizes_are_read_as_people_write_them_or_refused():
    texts = ("70e9", "70B", "1.4T", "160M", "2.5K", "21,000,000")
    assert list(map(size, texts)) == [70e9, 70e9, 1.4e12, 160e6, 2500, 21e6]
    for text in ("seventy", "70G", "B", ""):
        with pytest.raises(typer.BadParameter, match="expected a number such as 70e9 or 70B"):
            size(text)


def test_lists_are_split_at_commas_outside_brackets():
    nested = "E + A*saturated(d/D, exp(a))"
    assert names(f"chinchilla, {nested},kaplan,") == ["chinchilla", nested, "kaplan"]
    assert names("f(a, g(b), c), h(d)") == ["f(a, g(b), c)", "h(d)"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [("tables", "--json"), ("tables",), ("check", "opt"), ("--help",)])
def test_output_that_cannot_be_written_is_one_error(arguments, unbuffered):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bayescale", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: [Errno 28] No space left on device; what was printed is incomplete\n"


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no SIGPIPE")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments", [("tables", "--json"), ("tables",), ("laws",), ("check", "opt"), ("--help",)]
)
def test_a_closed_pipe_ends_a_command_as_it_ends_other_tools(arguments, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bayescale", *arguments],
            stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_fit_takes_no_options_of_fitting_and_a_damaged_one_is_told(fit_nc, tmp_path):
    at = ("--params", "1e9", "--tokens", "2e10")
    for option in (("--law", "kaplan"), ("--no-discrepancy",), ("--columns", "params=x")):
        done = run("forecast", fit_nc, *at, *option)
        assert done.returncode == 2
        assert f"{option[0].replace('no-', '')}: " in done.stderr
        assert "made already" in done.stderr
    whole = bytearray(fit_nc.read_bytes())
    z = bs.load_fit(fit_nc).z
    place = whole.find(z.tobytes()[:64])
    assert place > 0
    whole[place : place + 8] = z[..., -1:].tobytes()[:8]
    (tmp_path / "damaged.nc").write_bytes(whole)
    done = run("forecast", tmp_path / "damaged.nc", *at)
    assert done.returncode == 2
    assert "damaged" in done.stderr


def test_json_has_null_where_there_is_no_number():
    done = run("fit", "chinchilla", "--no-discrepancy", "--method", "fast", "--json")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    report = json.loads(done.stdout, parse_constant=refuse)
    assert None in report["parameters"]["noise_sd"].values()


def test_sizes_may_be_written_as_people_write_them(fit_nc):
    plain = run("forecast", fit_nc, "--params", "70e9", "--tokens", "1.4e12", "--json")
    short = run("forecast", fit_nc, "--params", "70B", "--tokens", "1.4T", "--json")
    assert short.stdout == plain.stdout
    at = run("forecast", fit_nc, "--at", "params=70B", "--at", "tokens=1.4T", "--json")
    assert at.stdout == plain.stdout
    budgets = [run("allocate", fit_nc, "--compute", text, "--json") for text in ("1e21", "1,000,000,000T")]
    assert budgets[0].returncode == 0, budgets[0].stderr
    assert budgets[0].stdout == budgets[1].stdout
    wrong = run("forecast", fit_nc, "--params", "70X", "--tokens", "1.4T")
    assert wrong.returncode == 2
    assert "--params" in wrong.stderr
    assert "found '70X'" in wrong.stderr


def test_fit_tells_noise_of_replicates_from_lack_of_fit():
    done = run("fit", "zipf-facts", "--no-discrepancy", "--draws", "300")
    assert re.search(r"replicates \(\d+ of \d+ configurations\): noise 0?\.\d+% of the loss", done.stdout)


def test_json_of_a_fit_holds_its_lack_of_fit_and_what_papers_print_of_its_table_alone(tmp_path):
    how = ("--no-discrepancy", "--draws", "300", "--json")
    found = json.loads(run("fit", "zipf-facts", *how).stdout)["lack_of_fit"]
    assert 0 < found["interval"][0] < found["pure_error"] < found["interval"][1]
    bundled = json.loads(run("fit", "chinchilla", *how).stdout)
    assert "besiroglu" in bundled["parameters"]["alpha"]
    assert bundled["lack_of_fit"] is None or bundled["lack_of_fit"]["configurations"] > 200
    namesake = tmp_path / "chinchilla.csv"
    shutil.copy(DATA / "chinchilla.csv", namesake)  # without its metadata, any file
    assert "besiroglu" not in json.loads(run("fit", namesake, *how).stdout)["parameters"]["alpha"]


def test_priors_of_what_a_fit_has_not_are_refused():
    for prior, without in (("discrepancy_sd", ["--no-discrepancy"]), ("noise_df", ["--noise", "normal"])):
        done = run("fit", "zipf-facts", "--prior", f"{prior}=LogNormal(1, 1)", *without)
        assert done.returncode == 2
        assert f"--prior {prior}: with {' '.join(without)} there is none" in done.stderr


def test_weights_that_cannot_apply_are_refused_before_anything_is_fitted():
    for weights, said in (("bogus", "expected evidence or stacking"), ("stacking", "give --params")):
        done = run("compare", "chinchilla", "--weights", weights)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_picture_of_no_known_format_is_refused_before_anything_is_fitted(tmp_path):
    for command in (
        ["forecast", "chinchilla", "--params", "1e9", "--tokens", "2e10"],
        ["compare", "chinchilla"],
    ):
        done = run(*command, "--plot", tmp_path / "a.xyz")
        assert done.returncode == 2
        assert "no picture format '.xyz'" in done.stderr
        assert "Fitting" not in done.stderr
        assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_fits_that_took_nuts_are_kept(runs_csv, tmp_path):
    how = (
        "--no-discrepancy",
        "--method",
        "nuts",
        "--draws",
        "300",
        "--params",
        "1e9",
        "--tokens",
        "2e10",
        "--json",
    )
    first = run("forecast", runs_csv, *how, BAYESCALE_CACHE=str(tmp_path))
    assert "Fitting" in first.stderr
    second = run("forecast", runs_csv, *how, BAYESCALE_CACHE=str(tmp_path))
    assert "Fitting" not in second.stderr
    assert second.stdout == first.stdout
    assert json.loads(first.stdout)["law"] == "chinchilla"


def test_failed_diagnostics_exit_1_and_say_so(tmp_path):
    write_runs(simulated_table(rows=12), tmp_path / "few.csv")
    done = run("fit", tmp_path / "few.csv", "--no-discrepancy", "--draws", "10", "--method", "fast")
    assert done.returncode == 1
    assert "do not rely on this fit" in done.stdout


def test_interrupting_a_fit_leaves_nothing(runs_csv, tmp_path):
    output = tmp_path / "fit.nc"
    process = subprocess.Popen(
        [sys.executable, "-m", "bayescale", "fit", runs_csv, "-o", output, "--method", "nuts",
         "--draws", "200000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Tests run in the background may have inherited that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        line = process.stderr.readline()
        assert "Fitting" in line
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors.endswith("interrupted; nothing half-written\n")
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_that_lands_in_a_callback_from_c_is_not_lost():
    code = """
import ctypes, signal, sys
from bayescale.cli.interrupts import resend_lost_interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background is born deaf to it
resend_lost_interrupts()
called = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))
try:
    called()
    signal.pause()
except KeyboardInterrupt:
    sys.exit(130)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


BAD = [
    (("fit", "absent.csv"), "no such file"),
    (("fit", "good.csv", "--method", "smc"), "--method: found 'smc'; expected one of auto, nuts, fast"),
    (("fit", "chinchila"), "did you mean 'chinchilla'? `bayescale tables` lists names"),
    (("fit", "curve.csv"), "which law 'chinchilla' needs; it has tokens, loss, loss_rounding. Laws of"),
    (("fit", "bad.csv"), "row 3, column 'loss'"),
    (("fit", "good.csv", "--columns", "params"), "--columns: found 'params'; expected NAME=VALUE"),
    (("fit", "good.csv", "--columns", "loss=ppl"), "no column 'ppl'"),
    (("fit", "good.csv", "--loss-unit", "nat"), "loss_unit is 'nat'"),
    (("fit", "good.csv", "--loss-unit", "bits/byte"), "tokens per byte"),
    (("fit", "good.csv", "--law", "chinchila"), "did you mean 'chinchilla'? expected one of chinchilla"),
    (("fit", "good.csv", "--law", "E + A*N**a"), "write N**-a"),
    (("fit", "good.csv", "--prior", "E=Cauchy(1, 1)"), "prior 'Cauchy(1, 1)' cannot be read"),
    (("fit", "good.csv", "-o", "absent/fit.nc"), "cannot write here"),
    (("fit", "good.csv", "-o", "."), "it is a folder"),
    (("fit", "one.csv"), "has 1 run(s)"),
    (("forecast", "cut.nc", "--params", "1e9", "--tokens", "1e9"), "truncated"),
    (("forecast", "absent.nc", "--params", "1e9", "--tokens", "1e9"), "no such file"),
    (("tables", "pull", "olmo-ladder-c4", "--from", "."), "does not exist"),
    (("tables", "show", "nothing"), "is unknown"),
    (("backtest", "good.csv", "--splits", "three"), "--splits: found 'three'; expected a number"),
    (("backtest", "good.csv", "--against", "magic"), "method 'magic' is unknown"),
    (("backtest", "good.csv", "--prior", "noise_df=Gamma(2, 1)", "--noise", "normal"), "with --noise normal"),
    (("forecast", "good.csv", "--at", "streams"), "--at: found 'streams'"),
    (("forecast", "good.csv", "--at", "streams=8X"), "--at: found '8X'; expected a number such as"),
    (("report", "good.csv", "-o", "r.html", "--compute", "1X"), "'--compute': found '1X'"),
    (("plan", "good.csv", "--target", "E", "--budget", "1X"), "'--budget': found '1X'"),
    (("forecast", "good.csv", "--params", "1e9", "--at", "params=2e9"), "by --params and by --at"),
    (("forecast", "good.csv", "--params", "1e9", "--tokens", "1e9", "--compute", "1e30"), "give two of the"),
    (("fit", "good.csv", "-o", "good.csv"), "expected .nc"),
    (("report", "good.nc", "-o", "good.nc"), "expected .html"),
    (("fit", "good.csv", "--seed", "-1"), "--seed"),
    (("fit", "good.csv", "--columns", "params=params,params=tokens"), "'params' is given twice"),
    (("fit", "good.csv", "--law", "E + A*N**-a + log(-1)"), "is no real number"),
    (("fit", "good.csv", "--law", "E + A*N**-a + noise_sd*D**-b"), "'noise_sd', which is the model's own"),
    (("fit", "good.csv", "--law", "E + A*loss**-a"), "explains the loss by 'loss'"),
    (("fit", "far.csv"), "runs span 291 decades"),
    (("forecast", "good.csv", "--params", "1e300", "--tokens", "1e9"), "params: found 1e+300, 29"),
    (("allocate", "good.csv", "--compute", "1e300"), "compute: found 1e+300, 280 decades"),
    (("plan", "good.csv", "--budget", "1e20", "--target", "params=0,tokens=1e9"), "found 'params=0'"),
    (("plan", "good.csv", "--budget", "1e20", "--target", "E", "--laws", "kaplan", "--law", "kaplan"),
     "--law and --laws"),
    (("backtest", "good.csv", "--splits", "0"), "factors: found 0"),
    (("check", "."), "no such file"),
    (("check", "ladder.toml", "--columns", "loss=x"), "cannot apply to ladder.toml, which is a ladder"),
    (("fit", "good.csv", "--prior", "E=Cauchy(1, 1)"), "by 'or' (of 'E')"),
    (("fit", "good.csv", "--loss-unit", "bits/byte"), "good.csv: losses in bits/byte need"),
    (("fit", "good.csv", "--group-effect", "loss"), "column 'loss' cannot group runs"),
    (("fit", "named.csv"), 'Is it \'train_tokens\'? Then say so: --columns "tokens=train_tokens"'),
    (("fit", "stranger.csv"), "a prior of 'Ex', which is no parameter of 'chinchilla' or"),
    (("tables", "--json", "show", "chinchilla"), "`bayescale tables show NAME --json`"),
    (("laws", "--json", "show", "chinchilla"), "`bayescale laws show NAME --json`"),
    (("compare", "good.csv", "--laws", "chinchilla,kaplann"), "did you mean 'kaplan'?"),
    (("compare", "good.csv", "--laws", "chinchilla"), "at least two laws, found 1"),
    (("compare", "good.csv", "--laws", "chinchilla,kaplan", "--params", "1e9"), "'tokens' is not given"),
    (("plan", "good.csv", "--budget", "1e20", "--target", "E", "--candidates", "words.csv"),
     "words.csv, row 2, column 'params': found 'big'; expected a number"),
    (("allocate", "good.csv", "--loss", "-1"), "loss: found [-1.0]; expected positive numbers"),
]  # fmt: skip


def test_train_shows_its_plan_and_check_reads_ladders(tmp_path):
    pytest.importorskip("torch")
    ladder = tmp_path / "tiny.toml"
    ladder.write_text(
        'name = "tiny"\n[source]\nkind = "zipf-facts"\nsymbols = 16\nvalidation_tokens = 4800\n'
        "[model]\ncontext = 12\n[[runs]]\nparams = [2e3, 4e3]\ntokens = [2e4]\n"
    )
    done = run("train", ladder, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "FLOP" in done.stdout
    checked = run("check", ladder, cwd=tmp_path)
    assert checked.returncode == 1
    assert "arXiv:" in checked.stdout
    missing = run("train", tmp_path / "absent.toml")
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr


def test_runs_of_the_trainer_are_a_run_table():
    table = bs.load("zipf-facts")
    assert table.meta.entropy_rate == pytest.approx(1.0543, abs=1e-4)
    assert len(table) == 35
    assert run("check", "zipf-facts").returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad")
    good = "params,tokens,loss\n1e8,2e9,3.51\n2e8,4e9,3.25\n4e8,8e9,3.02\n8e8,2e10,2.9\n"
    (path / "good.csv").write_text(good)
    (path / "curve.csv").write_text("tokens,loss\n1e9,3.51\n2e9,3.25\n4e9,3.02\n8e9,2.9\n")
    (path / "far.csv").write_text(good + "8e8,2e300,2.8\n")
    (path / "one.csv").write_text("params,tokens,loss\n1e8,2e9,3.51\n")
    (path / "bad.csv").write_text("params,tokens,loss\n1e8,2e9,3.51\n2e8,4e9,-3.25\n")
    (path / "ladder.toml").write_text('name = "ladder"')
    (path / "words.csv").write_text("params,tokens,compute\nbig,1e9,6e18\n")
    (path / "named.csv").write_text(good.replace("tokens", "train_tokens"))
    (path / "stranger.csv").write_text(good)
    (path / "stranger.toml").write_text('priors = {Ex = "LogNormal(1, 1)"}')
    (path / "cut.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    return path


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_error_without_traceback(folder, arguments, message, monkeypatch, capsys):
    """In this process, which has imported all that a command needs: what is raised past `main` fails here."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["bayescale", *arguments])
    monkeypatch.setattr("bayescale.cli.resend_lost_interrupts", lambda: None)
    before = sorted(folder.iterdir())
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    assert end.value.code == 2
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""
    assert sorted(folder.iterdir()) == before


def test_python_names_are_all_there():
    assert all(getattr(bs, name) for name in bs.__all__)
    with pytest.raises(AttributeError):
        _ = bs.nothing


def test_a_trackers_export_is_read_and_rows_left_out_are_counted(tmp_path):
    rows = simulated_table(rows=12).frame
    lines = ["Name,State,config.n_params_M,train/tokens_seen,eval/bpb"]
    for number, run_ in rows.iterrows():
        bpb = run_["loss"] / 0.6931 * 0.25
        shown = {3: "", 5: "inf"}.get(number, f"{bpb:.5f}")
        lines.append(f"sweep-{number},finished,{run_['params'] / 1e6:.4f},{run_['tokens']:.0f},{shown}")
    export = tmp_path / "export 2026-11-23.csv"
    export.write_text("\n".join(lines))
    named = "params=config.n_params_M * 1e6,tokens=train/tokens_seen,loss=eval/bpb"
    how = ("--columns", named, "--loss-unit", "bits/byte", "--tokens-per-byte", "0.25")
    refused = run("check", export, *how)
    assert refused.returncode == 2
    assert "row 5, column 'loss': the value is missing (1 such rows)" in refused.stderr
    done = run("check", export, *how, "--drop-missing", "--json")
    assert done.returncode == 0, done.stderr
    assert "left out as missing an input or a finite loss: 2 of 12 rows" in done.stderr
    assert json.loads(done.stdout)["runs"] == 10
