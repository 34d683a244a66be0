"""The wheel as a stranger gets it: built, installed apart from the checkout, and run offline."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNREACHABLE = (
    "error sending request",
    "dns error",
    "Failed to fetch",
    "connect error",
    "Network is unreachable",
)

pytestmark = pytest.mark.slow


def uv(*arguments, cwd=ROOT) -> str:
    """Run uv; skip where it is missing or the package index cannot be reached."""
    program = shutil.which("uv") or shutil.which("uv", path=ROOT / ".uv" / "bin")
    if program is None:
        pytest.skip("no uv on PATH or in .uv (make test puts one there)")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", folder)
    return folder


@pytest.fixture(scope="module")
def bayescale(built, tmp_path_factory):
    """Install the wheel into a fresh environment; return a function that runs its command elsewhere."""
    place = tmp_path_factory.mktemp("elsewhere")
    uv("venv", "--quiet", "--python", sys.executable, place / "venv")
    (wheel,) = built.glob("*.whl")
    python = place / "venv" / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", wheel)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    # A proxy that refuses: whatever wants the network now fails.
    environment |= {"BAYESCALE_CACHE": str(place / "cache"), "https_proxy": "http://127.0.0.1:9"}

    def run(*arguments, **more):
        return subprocess.run(
            [place / "venv" / "bin" / "bayescale", *arguments],
            capture_output=True, text=True, cwd=place, env=environment | more, check=False,
        )  # fmt: skip

    return run


def test_wheel_and_source_carry_data_trainer_style_and_template(built):
    from zipfile import ZipFile

    (wheel,) = built.glob("*.whl")
    names = set(ZipFile(wheel).namelist())
    for name in (
        "bayescale/_data/chinchilla.csv",
        "bayescale/_data/catalogue/gadre-c4.toml",
        "bayescale/plots/bayescale.mplstyle",
        "bayescale/reports/report.html.j2",
        "bayescale_trainer/cli.py",
    ):
        assert name in names, name
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        inside = {n.partition("/")[2] for n in archive.getnames()}
    tracked = {"data/chinchilla.csv", "tests/test_packaging.py", "CHANGELOG.md", "ladders/zipf-facts.toml"}
    assert tracked <= inside


def test_installed_command_lists_forecasts_and_reports(bayescale, tmp_path):
    listed = bayescale("tables", "--json")
    assert "chinchilla" in [row["name"] for row in json.loads(listed.stdout)], listed.stderr
    asked = ("--params", "70e9", "--tokens", "1.4e12", "--no-discrepancy", "--draws", "200")
    done = bayescale("forecast", "chinchilla", *asked, "--json")
    assert done.returncode == 0, done.stderr
    assert 1.8 < json.loads(done.stdout)["targets"][0]["loss"] < 2.1
    done = bayescale("report", "chinchilla", "-o", tmp_path / "report.html", *asked)
    assert done.returncode == 0, done.stderr
    assert "</html>" in (tmp_path / "report.html").read_text()


def test_training_without_torch_says_what_to_install(bayescale, tmp_path):
    done = bayescale("train", ROOT / "ladders" / "zipf-facts.toml", "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "pip install 'bayescale[trainer]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_shell_completion_is_offered(bayescale):
    assert "--install-completion" in bayescale("--help").stdout
    # Else the shell is that which the tests were started from, if there is one.
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert "_BAYESCALE_COMPLETE" in bayescale("--show-completion", "bash", **told).stdout
