"""Every notebook runs from top to bottom, as it stands."""

from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, tmp_path):
    jupytext = pytest.importorskip("jupytext")
    from nbclient import NotebookClient

    if "bayescale_trainer" in path.read_text("utf-8"):
        pytest.importorskip("torch", reason="the trainer needs PyTorch: pip install 'bayescale[trainer]'")
    notebook = jupytext.read(path)
    assert notebook.cells[0].source.startswith("# "), "a notebook begins with its question"
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    drawn = sum("image/png" in o.get("data", {}) for o in shown)
    assert drawn == sum("plots.plot_" in cell.source for cell in notebook.cells) > 0
