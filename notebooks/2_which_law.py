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
# # Which law do these runs speak for?
#
# Papers disagree on the form of the scaling law: two exponents or one, terms that add or that are
# joined as in Kaplan et al., a floor or none. A table of runs can be asked. The *evidence* of a law is
# the probability that it, with its priors, gave to the losses before seeing them; ratios of evidences
# are Bayes factors.

# %%
import bayescale as bs
from bayescale import plots

table = bs.load("chinchilla")
laws = ["chinchilla", "chinchilla-shared", "kaplan-floor", "kaplan"]
compared = bs.compare(table, laws, discrepancy=False)
compared.summary()

# %%
for sentence in compared.verdict():
    print(sentence)

# %% [markdown]
# Two laws are out, by a hundred nats and more. The other two are nested: `chinchilla-shared` is
# `chinchilla` with alpha = beta, and the table does not settle whether they are equal.

# %%
_ = plots.plot_evidence(compared)

# %% [markdown]
# ## What the verdict hangs on
#
# Evidence depends on priors and on the noise model, and honest use of it shows how much. Here the
# priors' widths are halved and doubled, and Student-t noise is exchanged for Normal:

# %%
compared.sensitivity_table()

# %% [markdown]
# A sign that turns with the noise model is no verdict about the law.
#
# ## The nested question, asked directly
#
# For laws inside each other the posterior of what separates them says more than a Bayes factor:

# %%
for separation in compared.nested():
    print(separation)

# %% [markdown]
# ## Where on the table one law does better
#
# Leave-one-out differences, run by run along compute. A law that is wrong somewhere shows it as a
# region, not as scatter.

# %%
_ = plots.plot_loo_difference(compared)

# %% [markdown]
# ## Forecast without choosing
#
# Where the table cannot choose, neither should a forecast. The average weighs laws by evidence, and
# tells the spread between laws from that within each.

# %%
compared.forecast(params=70e9, tokens=1.4e12).summary()

# %% [markdown]
# These fits take each law as true (`discrepancy=False`), which is right for asking about laws and wrong
# for bands: see the notebook on bands that hold. With the discrepancy most laws can be repaired, and
# evidence between them shrinks, as it should.
