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
# # What loss will a 70B-parameter run reach?
#
# In 2022 Hoffmann et al. trained some four hundred models of up to 16 billion parameters, and from
# them chose one expensive run: Chinchilla, 70 billion parameters on 1.4 trillion tokens. 245 of the
# small runs can be read off a figure of their paper (Besiroglu et al. 2024, arXiv:2404.10102).
# Suppose we had only these, and were asked what the expensive run would give.

# %%
import bayescale as bs
from bayescale import plots

table = bs.load("chinchilla")
print(table.meta.citation)
table.frame.describe().loc[["count", "min", "max"], ["params", "tokens", "compute", "loss"]]

# %% [markdown]
# Before fitting anything, ask what in this table could mislead. Each finding has a code and a
# citation.

# %%
for finding in bs.check(table):
    print(f"{finding.code}: {finding.message} ({finding.citation})")

# %% [markdown]
# ## Fit
#
# The law adds a term for finite parameters and one for finite tokens to a floor, L = E + A/N^alpha +
# B/D^beta. The fit is a posterior: draws of everything that is compatible with the runs, the law's
# own misfit included. The first thing to look at is whether the draws can be believed.

# %%
fit = bs.fit(table, law="chinchilla")
print("diagnostics passed:", fit.diagnostics.passed)
fit.summary()

# %% [markdown]
# `E` is much less certain than the papers print. They fitted the law as if it were true; here it may
# be smoothly wrong, and a floor is what remains after extrapolating to infinite compute. The plain
# law, for comparison:

# %%
plain = bs.fit(table, law="chinchilla", discrepancy=False)
for name, fitted in (("law that may be wrong", fit), ("law taken as true", plain)):
    e = fitted.summary().loc["E"]
    print(f"{name}: E = {e['50%']:.3f} nats/token, 90% interval {e['5%']:.3f} to {e['95%']:.3f}")

# %% [markdown]
# ## Forecast
#
# The forecast is again draws. `expected_loss` is that of the recipe; `loss` is one run's, noise
# added.

# %%
forecast = fit.forecast(params=70e9, tokens=1.4e12)
row = forecast.summary().iloc[0]
low, high = row["loss_90%_low"], row["loss_90%_high"]
print(f"median {row['loss']:.3f}, 90% between {low:.3f} and {high:.3f} nats/token")
print(*forecast.warnings, sep="\n")

# %%
_ = plots.plot_forecast(fit, forecast)

# %% [markdown]
# In the grey there are no runs. The band widens there because the misfit that the runs show may go
# on, or turn.
#
# ## Was 70B the right size?
#
# For the same compute one could train a smaller model longer, or a larger one shorter.

# %%
allocation = fit.allocate(compute=5.88e23)
allocation.summary()[["quantity", "median", "90%_low", "90%_high", "unit"]]

# %%
_ = plots.plot_allocation(fit, "tokens_per_param")

# %% [markdown]
# The dashed lines are three published fits to these very runs. They disagree about the best ratio far
# from the table, each surely: two of them inside a band that says, these runs cannot tell, the third,
# Besiroglu et al.'s, just below it.
#
# `bayescale report chinchilla -o report.html --params 70e9 --tokens 1.4e12 --compute 5.88e23` writes
# all of this, and more, as one page to pass on.
