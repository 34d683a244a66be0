"""Do repeated tokens, or excess params, count less? Evidence on 182 runs of Muennighoff et al.

    .venv/bin/python -m tests.benchmarks.repeated_data ../shared/published

Chinchilla's law, where every token counts in full, beside laws with R*_D, with R*_N, and with both; all
parameters are free.
"""

import sys

import numpy as np

import bayescale as bs
from tests.test_reproductions import repeated_runs

LAWS = ("muennighoff-excess", "muennighoff", "muennighoff-params", "chinchilla")


def main(folder: str) -> None:
    compared = bs.compare(repeated_runs(folder), LAWS, method="fast", draws=1000)
    factors, summary = compared.sensitivity_table(), compared.summary()
    print(f"log Bayes factors, nats: {' / '.join(map(str, factors.index))}\n")
    print("| law | log evidence | log Bayes factors | elpd, PSIS-LOO | R*_D, 90% | R*_N, 90% |")
    print("|---|---|---|---|---|---|")
    for name, row in summary.iterrows():
        draws = compared.fits[str(name)].parameters
        shown = " / ".join(f"{factors.loc[s, name]:+.1f}" for s in factors.index)
        decays = " | ".join(interval(draws[r]) if r in draws else "-" for r in ("R_D", "R_N"))
        evidence = f"{row['log_evidence']:.1f} +- {row['error']:.2f}"
        print(f"| {name} | {evidence} | {shown} | {row['elpd_loo']:.1f} | {decays} |")
    print("\n" + "\n".join(compared.verdict() + compared.warnings))


def interval(draws: np.ndarray) -> str:
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


if __name__ == "__main__":
    main(sys.argv[1])
