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
# # Which run next?
#
# A forecast is too wide to decide on, and there is compute for a few more small runs. Which ones? Runs
# differ in what they tell about a target, and in price. A *plan* chooses by information per FLOP.
#
# Here the game is played with runs that were trained long ago, so that its promise can be checked: we
# know only the cheapest of the Chinchilla runs, 89 of 240, and may buy from the rest.

# %%
import bayescale as bs
from bayescale import plots

runs = bs.load("chinchilla")
compute = runs.column("compute")
known = runs.where(compute < 4e19)
pool = runs.where((compute >= 4e19) & (compute < 1e21))
fit = bs.fit(known)
len(known), len(pool)

# %% [markdown]
# The target is the loss of a 10B-parameter model at 200B tokens. The discrepancy of the law matters
# here: a fit that believes its law finds every run uninformative.

# %%
target = "params=1e10,tokens=2e11"
plan = bs.plan(fit, target, budget=3e21, candidates=pool)
plan.grouped()

# %%
_ = plots.plot_plan(fit, plan)

# %% [markdown]
# Each point is a run that could be bought; colour is what it tells per FLOP, rings mark the choice.
# The plan predicts how narrow the target's 90% band will be once they are trained:

# %%
print(f"now {plan.width:.3f} nats/token, predicted {plan.predicted_width:.3f}")

# %% [markdown]
# Now buy them, add them to the table, and fit again.

# %%
import pandas as pd

from bayescale.runs import RunTable

bought = pool.frame.merge(plan.runs[["params", "tokens"]].drop_duplicates(), on=["params", "tokens"])
more = RunTable(pd.concat([known.frame, bought], ignore_index=True), known.meta)
after = bs.fit(more).forecast(params=1e10, tokens=2e11).summary().iloc[0]
print(f"realised {after['expected_loss_90%_high'] - after['expected_loss_90%_low']:.3f} nats/token")

# %% [markdown]
# Compare the two last numbers. The prediction counts what the new runs will teach, about noise and
# discrepancy too, but on average over their outcomes; expect it to be right within a quarter or so.
#
# ## The whole loop
#
# With a trainer at hand the runs need not exist: `bayescale plan ... --ladder ladder.toml -o next.toml`
# writes a ladder that `bayescale train` takes, and `bayescale tighten` goes round (plan, train, refit)
# until the band is as narrow as asked or the budget is spent. `make tighten` does so on this machine's
# CPU, on a source whose entropy is known, in several minutes.
