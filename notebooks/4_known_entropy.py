# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Can a fit find a floor that we know?
#
# A scaling law's floor `E` is the entropy of the text. For text that people wrote nobody knows it, so
# nobody can say whether a fitted floor is right. For text that a program wrote one can: bayescale's
# trainer makes such text, *Zipf-facts*, and knows its entropy rate exactly.
#
# ## Train a short ladder
#
# Twelve transformers of 6 to 41 thousand parameters take about a minute on two CPU cores.

# %%
import tempfile
from pathlib import Path

from bayescale_trainer.cli import main as train

import bayescale as bs
from bayescale import plots

LADDER = """
name = "short"

[source]
kind = "zipf-facts"
symbols = 256
key_tokens = 2
exponent = 0.5

[[runs]]
params = [5.6e3, 14e3, 36e3]
tokens = [60e3, 120e3, 240e3, 480e3]
"""

folder = Path(tempfile.mkdtemp())
(folder / "short.toml").write_text(LADDER)
status = train([str(folder / "short.toml"), "-o", str(folder / "out")])
short = bs.load(folder / "out" / "runs.csv")
short.frame[["params", "tokens", "compute", "loss"]].round(4)

# %% [markdown]
# The exact entropy rate travels with the table. No model can end below it.

# %%
print(f"exact: {short.meta.entropy_rate:.4f} nats/token; best run: {short.column('loss').min():.4f}")
fit = bs.fit(short)
e = fit.summary().loc["E"]
print(f"fitted E: {e['50%']:.3f}, 90% interval {e['5%']:.3f} to {e['95%']:.3f} nats/token")
print("diagnostics passed:", fit.diagnostics.passed)

# %% [markdown]
# Twelve runs with one seed each leave the floor wide open, and the fit says so.

# %% [markdown]
# ## A longer ladder
#
# Ladders of 35 and 45 runs are bundled, trained the same way: on this source, and on one that asks for its
# facts more unequally.

# %%
for name in ("zipf-facts", "zipf-facts-steep"):
    table = bs.load(name)
    for how in (True, False):
        fit = bs.fit(table, discrepancy=how, seed=1)
        e = fit.summary().loc["E"]
        held = "holds" if e["5%"] <= table.meta.entropy_rate <= e["95%"] else "misses"
        words = "discrepancy" if how else "law alone  "
        marked = "" if fit.diagnostics.passed else " (diagnostics failed: do not rely on it)"
        print(
            f"{name:16} {words} {e['5%']:.3f} to {e['95%']:.3f} {held} the exact "
            f"{table.meta.entropy_rate:.4f}{marked}"
        )

# %% [markdown]
# This is the uncomfortable part of having the truth at hand: the law alone is sure of a floor that lies
# below it. In ladders this small the truth bends away from the additive law; a discrepancy knows that a law
# can be wrong, and its interval, wider, holds the rate. Ladders without small models trained long
# put even that interval too low. A floor is the hardest thing to learn from a scaling law, and for text
# that people wrote there is no truth to notice it by.
#
# Forecasts are an easier question than floors: hide the runs with the most compute, and forecast
# them.

# %%
table = bs.load("zipf-facts")
backtest = bs.backtest(table, factors=[3], methods=["discrepancy", "law-only"])
backtest.summary()[["coverage_50%", "coverage_90%", "half_width_%"]]

# %%
_ = plots.plot_bands(bs.fit(table))

# %% [markdown]
# ## Much dearer runs
#
# And runs far beyond the table? The same source was trained on a GPU, up to 3,100 times the compute of the
# dearest run above; those runs are bundled, too.

# %%
gpu = bs.load("zipf-facts-gpu")
dear = gpu.where(gpu.column("compute") > table.column("compute").max())
forecast = bs.fit(table).forecast(params=dear.column("params"), tokens=dear.column("tokens"))
bands = forecast.summary()[["params", "tokens", "loss_90%_low", "loss_90%_high"]]
bands["trained to"] = dear.column("loss")
inside = bands["trained to"].between(bands["loss_90%_low"], bands["loss_90%_high"])
print(f"{inside.sum()} of {len(bands)} ended inside their 90% band")
bands.tail(4).round(4)
