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
# # How do I bring my own table, and my own law?
#
# ## The table
#
# An export of an experiment tracker has its own column names, losses in its own unit, and some runs
# that never finished. This one is made up, from a known law, so that we can see what comes back.

# %%
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import bayescale as bs
from bayescale import plots

TOKENS_PER_BYTE = 0.25  # of the evaluation text under our tokenizer
rng = np.random.default_rng(0)
size, data = (g.ravel() for g in np.meshgrid([2e7, 6e7, 2e8, 6e8, 1.5e9], [1e9, 3e9, 1e10, 3e10]))
nats_per_token = (1.9 + 400 / size**0.34 + 1500 / data**0.35) * np.exp(0.002 * rng.standard_normal(size.size))
export = pd.DataFrame(
    {
        "Name": [f"sweep-{i}" for i in range(size.size)],
        "config.model.n_params": size,
        "config.data.tokens": data,
        "eval/bpb": nats_per_token * TOKENS_PER_BYTE / np.log(2),
        "State": "finished",
    }
)
export.loc[[3, 11], "eval/bpb"] = np.nan  # crashed
path = Path(tempfile.mkdtemp()) / "export.csv"
export.to_csv(path, index=False)
export.head()

# %% [markdown]
# Reading it as it stands fails, and the message says what to do:

# %%
try:
    bs.load(path)
except bs.BayescaleError as error:
    print(error)

# %% [markdown]
# So: which column is which, in what unit the losses are, and that unfinished runs be left out. Losses
# per byte also need the tokenizer's tokens per byte.

# %%
table = bs.load(
    path,
    columns={"params": "config.model.n_params", "tokens": "config.data.tokens", "loss": "eval/bpb"},
    loss_unit="bits/byte",
    tokens_per_byte=TOKENS_PER_BYTE,
    drop_missing=True,
)
print(len(table), "runs; losses now in nats/token:")
table.frame[["params", "tokens", "compute", "loss"]].head()

# %% [markdown]
# Put columns and units into an `export.toml` beside the file, and nobody has to remember them (only
# `drop_missing` is said each time).
# `bs.check` finds what else to know; the convention of N is worth stating.

# %%
for finding in bs.check(table):
    print(f"{finding.code}: {finding.message}")

# %% [markdown]
# ## The law
#
# A law is a formula. N, D, C and U mean params, tokens, compute and unique tokens; the name of a
# column means that column; every other name is a parameter. Amplitudes, exponents and the floor get
# their default priors from where they stand in the formula.

# %%
fit = bs.fit(table, law="E + A*N**-a + B*D**-b")
print("diagnostics passed:", fit.diagnostics.passed)
fit.summary().loc[["E", "a", "b", "noise_sd"]]

# %% [markdown]
# The truth was E = 1.9, a = .34, b = .35 and noise of .002. What do we know about the floor that the
# table does not? Say, from other work, that it is within 10% of 1.85 nats/token: that is a prior.

# %%
informed = bs.fit(table, law="E + A*N**-a + B*D**-b", priors={"E": "LogNormal(1.85, 0.05)"})
for name, fitted in (("default prior", fit), ("informed", informed)):
    e = fitted.summary().loc["E"]
    print(f"{name}: E between {e['5%']:.3f} and {e['95%']:.3f} nats/token")

# %%
_ = plots.plot_prior_posterior(informed)

# %% [markdown]
# A form that no built-in law has: a third term, which both inputs must shrink. With the discrepancy
# off the question is about the law as such, and the evidence (nats, higher is better) compares the
# two.

# %%
for law in ("E + A*N**-a + B*D**-b", "E + A*N**-a + B*D**-b + K*N**-a*D**-b"):
    other = bs.fit(table, law=law, discrepancy=False)
    row = other.forecast(params=7e9, tokens=1.4e11).summary().iloc[0]
    print(law, "diagnostics passed:", other.diagnostics.passed)
    print(f"  evidence {other.evidence.log:.1f} nats")
    print(
        f"  a 7B run on 140B tokens: {row['loss_90%_low']:.3f} to {row['loss_90%_high']:.3f} nats/token (90%)"
    )

# %% [markdown]
# ## To pass on
#
# A report is one file that opens anywhere. From the command line, `bayescale report export.csv
# --columns ... -o report.html` does the same.

# %%
page = bs.report(fit, forecast=fit.forecast(params=7e9, tokens=1.4e11))
(path.parent / "report.html").write_text(page)
print(f"{len(page) / 1e6:.1f} MB")
