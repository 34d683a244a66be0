from contextlib import suppress

import pytest

with suppress(ImportError):  # without torch, the tests that need it skip
    import torch

    torch.set_num_threads(1)

TINY = """
name = "tiny"
[source]
kind = "zipf-facts"
symbols = 16
validation_tokens = 4800
[model]
context = 12
[recipe]
least_batch_tokens = 96
[engine]
device = "cpu"
workers = 1
"""


@pytest.fixture
def write_ladder(tmp_path):
    """Write a ladder of tiny models; the runs and other tables are given as TOML."""

    def write(runs, text=TINY, name="tiny.toml"):
        path = tmp_path / name
        path.write_text(text + runs)
        return path

    return write
