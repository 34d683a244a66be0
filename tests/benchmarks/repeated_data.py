"""Do repeated tokens, or excess params, count less? Evidence on 182 runs of Muennighoff et al.

    .venv/bin/python -m tests.benchmarks.repeated_data ../shared/published

Chinchilla's law, where every token counts in full, beside laws with R*_D, with R*_N, and with both; all
parameters are free. Then the same with a discrepancy and Normal noise, whose fits stand.
"""

import sys

import numpy as np

import bayescale as bs
from tests.test_reproductions import repeated_runs

LAWS = ("muennighoff-excess", "muennighoff", "muennighoff-params", "chinchilla")


def main(folder: str) -> None:
    table = repeated_runs(folder)
    compared = bs.compare(table, LAWS, method="fast", draws=1000)
    factors = compared.sensitivity_table()
    print(f"log Bayes factors, nats: {' / '.join(map(str, factors.index))}\n")
    show(compared, {name: " / ".join(f"{b:+.1f}" for b in factors[name]) for name in factors})
    print("\nDiscrepancy, Normal noise\n")
    wrong = bs.compare(
        table, LAWS, discrepancy=True, noise="normal", sensitivity=False, method="fast", draws=1000
    )
    show(wrong, {str(n): f"{b:+.1f}" for n, b in wrong.summary()["log_bayes_factor"].items()})


def show(compared: bs.Comparison, factors: dict[str, str]) -> None:
    print("| law | log evidence | log Bayes factors | elpd, PSIS-LOO | R*_D, 90% | R*_N, 90% |")
    print("|---|---|---|---|---|---|")
    for name, row in compared.summary().iterrows():
        draws = compared.fits[str(name)].parameters
        decays = " | ".join(interval(draws[r]) if r in draws else "-" for r in ("R_D", "R_N"))
        evidence = f"{row['log_evidence']:.1f} +- {row['error']:.2f}"
        print(f"| {name} | {evidence} | {factors[str(name)]} | {row['elpd_loo']:.1f} | {decays} |")
    print("\n" + "\n".join(compared.verdict() + compared.warnings), flush=True)


def interval(draws: np.ndarray) -> str:
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


if __name__ == "__main__":
    main(sys.argv[1])
