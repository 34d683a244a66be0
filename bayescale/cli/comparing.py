"""`bayescale compare`: evidence between laws."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayescale.cli.options import (
    DiscrepancyOption,
    DrawsOption,
    GroupOption,
    JsonOption,
    MethodOption,
    NoiseOption,
    ParamsOption,
    SeedOption,
    TableOptions,
    TableSource,
    TokensOption,
    names,
    target_inputs,
)
from bayescale.cli.output import exit_by, print_data, print_frame, print_warnings, say

if TYPE_CHECKING:
    from bayescale.comparison import Comparison
    from bayescale.runs import RunTable


def compare(
    source: TableSource,
    *,
    laws: Annotated[
        str, typer.Option("--laws", help="Names or formulas, comma-separated.")
    ] = "chinchilla,chinchilla-shared,kaplan-floor,kaplan",
    sensitivity: Annotated[
        bool, typer.Option(help="Refit with other prior widths, noise and discrepancy.")
    ] = True,
    heldout: Annotated[bool, typer.Option("--heldout", help="Score hidden expensive runs too.")] = False,
    params: ParamsOption = None,
    tokens: TokensOption = None,
    weights: Annotated[str, typer.Option(help="Average by evidence or stacking.")] = "evidence",
    plot: Annotated[Path | None, typer.Option(help="Draw the comparison here (.svg, .png).")] = None,
    noise: NoiseOption = "student-t",
    discrepancy: DiscrepancyOption = False,
    group_effect: GroupOption = None,
    method: MethodOption = "auto",
    draws: DrawsOption = 1500,
    seed: SeedOption = 0,
    reading: TableOptions,
    as_json: JsonOption = False,
) -> None:
    """Compare laws on a table: evidence, prediction, and what the verdict hangs on."""
    from bayescale.comparison import compare as run

    if plot:
        from bayescale.plots import require_picture

        require_picture(plot)
    inputs = target_inputs(None, params=params, tokens=tokens)
    _require_weights(weights, bool(inputs))
    table = reading.load(source)
    _require_inputs(table, names(laws), inputs)
    compared = run(
        table, names(laws), sensitivity=sensitivity, heldout=heldout,
        method=method, noise=noise, discrepancy=discrepancy, group_effect=group_effect, draws=draws,
        seed=seed, progress=say,
    )  # fmt: skip
    averaged = compared.forecast(weights=weights, seed=seed, **inputs) if inputs else None
    if plot:
        from bayescale.plots import plot_comparison, save_figure

        save_figure(plot_comparison(compared), plot)
    warnings = compared.warnings + (averaged.warnings if averaged else [])
    if as_json:
        data = compared.to_dict() | {"warnings": warnings}
        if averaged:
            data |= {"forecast": averaged.summary().to_dict("records"), "weights": dict(averaged.weights)}
        print_data(data)
    else:
        _print_comparison(compared)
        if averaged:
            print_frame(
                averaged.summary().T.reset_index(), f"forecast, laws averaged by {weights} (nats/token)"
            )
            print_frame(averaged.by_law(), "expected loss law by law (nats/token)")
        print_warnings(warnings)
    exit_by(not compared.unreliable)


def _require_inputs(table: "RunTable", laws: list[str], inputs: dict[str, Any]) -> None:
    """Raise for inputs that the forecast would refuse once all is fitted."""
    from bayescale.averaging import own_inputs
    from bayescale.forecasts import complete_inputs
    from bayescale.laws import find_law

    found = {law: find_law(law, **table.names_for_laws()) for law in laws}
    for name, law in found.items() if inputs else ():
        complete_inputs(law, table.counting, own_inputs(found, name, inputs))


def _require_weights(weights: str, forecast: bool) -> None:
    from bayescale.comparison import WEIGHTS
    from bayescale.errors import BayescaleError

    if weights not in WEIGHTS:
        raise BayescaleError(f"--weights: found {weights!r}; expected {' or '.join(WEIGHTS)}")
    if weights != WEIGHTS[0] and not forecast:
        raise BayescaleError("--weights average forecasts: give --params and --tokens, too")


def _print_comparison(compared: "Comparison") -> None:
    summary = compared.summary().reset_index()
    evidence = ["law", "parameters", "log_evidence", "error", "log_bayes_factor", "probability", "reliable"]
    shown = summary[evidence].astype({"log_evidence": object})
    shown["log_evidence"] = [f"{value:.2f}" for value in summary["log_evidence"]]
    title = f"evidence on {compared.table.name}, {len(compared.table)} runs (nats of log loss)"
    print_frame(shown, title)
    predictive = [c for c in summary if c not in evidence or c == "law"]
    print_frame(summary[predictive], "\nprediction of left-out runs (PSIS-LOO, nats of log loss)")
    if compared.sensitivity:
        rows = compared.sensitivity_table().reset_index()
        print_frame(rows, f"\nlog Bayes factors against {compared.labels[0]} (nats)")
    print("\nverdict")
    for sentence in [*compared.verdict(), *map(str, compared.nested())]:
        print(f"- {sentence}")
