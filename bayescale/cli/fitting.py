"""`bayescale fit`, `forecast` and `allocate`, and how a command comes by a fit."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayescale.cli.options import (
    AtOption,
    FitOptions,
    HeldOption,
    JsonOption,
    OfGroupOption,
    ParamsOption,
    Source,
    TableOptions,
    TableSource,
    TokensOption,
    number,
    pairs,
    priors_given,
    refuse_for_fit,
    size,
    target_inputs,
)
from bayescale.cli.output import (
    exit_by,
    origin,
    print_counted,
    print_frame,
    print_json,
    print_warnings,
    say,
)

if TYPE_CHECKING:
    import pandas as pd

    from bayescale.fitting import Fit
    from bayescale.runs import RunTable


def fit(
    source: TableSource,
    *,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Save the fit (.nc).")] = None,
    how: FitOptions,
    reading: TableOptions,
    as_json: JsonOption = False,
) -> None:
    """Fit a scaling law to a run table."""
    from bayescale.files import require_writable
    from bayescale.replicates import lack_of_fit

    if output:
        require_writable(output, suffix=".nc", source=source)
    table = reading.load(source)
    fitted = _fit(table, how, output)
    summary, found = _with_published(fitted), lack_of_fit(fitted)
    if as_json:
        print_json(fitted, {"parameters": summary.to_dict("index"), "lack_of_fit": found and asdict(found)})
    else:
        print_frame(summary.reset_index(), f"{fitted.law.name} on {table.name}, {len(table)} runs")
        if found:
            print(found)
        print_warnings(fitted.warnings)
        if output:
            print(f"saved to {output}")
    exit_by(fitted.diagnostics.passed)


def forecast(
    source: Source,
    *,
    params: ParamsOption = None,
    tokens: TokensOption = None,
    compute: Annotated[
        list[float] | None, typer.Option(parser=size, metavar="C", help="FLOP. Repeatable.")
    ] = None,
    at: AtOption = None,
    group: OfGroupOption = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the forecast here (.svg, .png).")] = None,
    how: FitOptions,
    reading: TableOptions,
    as_json: JsonOption = False,
) -> None:
    """Forecast the loss of runs not yet trained, with bands."""
    inputs = target_inputs(at, params=params, tokens=tokens, compute=compute)
    if plot:
        from bayescale.plots import require_picture

        require_picture(plot)
    fitted = fit_of(source, reading, how).for_group(group)
    result = fitted.forecast(seed=how.seed, **inputs)
    if plot:
        from bayescale.plots import plot_forecast, save_figure

        save_figure(plot_forecast(fitted, result), plot)
    summary = result.summary()
    if as_json:
        targets = summary.to_dict("records")
        outside = [
            {name: float(decades[i]) for name, decades in result.outside.items()} for i in range(len(summary))
        ]
        print_json(
            fitted,
            {"unit": "nats/token", "targets": targets, "decades_outside": outside},
            result.warnings,
        )
    else:
        for _, row in summary.iterrows():
            print_frame(*_forecast_rows(row, fitted))
        if "compute" in summary and "compute" not in inputs:
            print_counted(fitted)
        print_warnings(result.warnings)
    exit_by(fitted.diagnostics.passed)


def allocate(
    source: Source,
    *,
    compute: Annotated[
        list[float] | None, typer.Option(parser=size, metavar="C", help="Budget, FLOP. Repeatable.")
    ] = None,
    loss: Annotated[
        list[float] | None, typer.Option(help="Instead: a loss to reach, nats/token. Repeatable.")
    ] = None,
    served_tokens: Annotated[
        float | None,
        typer.Option(
            parser=size, metavar="T", help="With --loss: tokens to serve once trained; their compute counts."
        ),
    ] = None,
    group: OfGroupOption = None,
    at: HeldOption = None,
    how: FitOptions,
    reading: TableOptions,
    as_json: JsonOption = False,
) -> None:
    """Split compute between params and tokens, or find the compute that a loss takes."""
    held = {name: number(value, "--at") for name, value in pairs(at, "--at").items()}
    fitted = fit_of(source, reading, how).for_group(group)
    result = fitted.allocate(
        compute=compute or None, loss=loss or None, served_tokens=served_tokens or 0.0, held=held,
        seed=how.seed,
    )  # fmt: skip
    if as_json:
        data: dict[str, Any] = {
            "held": dict(result.held),
            "allocations": result.summary().to_dict("records"),
        }
        if compute:
            data["expected_deadweight"] = result.expected_deadweight().tolist()
        print_json(fitted, data, result.warnings)
    else:
        asked = compute or loss or []
        summary = result.summary()
        for place, value in enumerate(asked):
            rows = summary[summary["budget"] == place]
            what = f"{value:.4g} " + ("FLOP" if compute else "nats/token")
            where = "".join(f", {name} {value:.4g}" for name, value in result.held.items())
            title = f"Compute-optimal run for {what}{where} ({origin(fitted)})"
            columns_shown = [
                "quantity",
                "median",
                "50%_low",
                "50%_high",
                "90%_low",
                "90%_high",
                "unit",
            ]
            print_frame(rows[columns_shown], title)
            if compute:
                waste = float(result.expected_deadweight()[place])
                share = f"{waste / value:.2%} of the budget"
                print(f"expected deadweight of acting on the medians: {waste:.3g} FLOP, {share}")
        print_counted(fitted)
        print_warnings(result.warnings)
    exit_by(fitted.diagnostics.passed)


def fit_of(source: str, reading: TableOptions, how: FitOptions) -> "Fit":
    """Load a fit, or make one of a table; those that took NUTS are kept in the cache."""
    from bayescale.errors import FitError
    from bayescale.files import cache_folder, made_folder

    if source.lower().endswith(".nc"):
        from bayescale.fitfile import load_fit

        refuse_for_fit(source, how, reading)
        return load_fit(source)

    table = reading.load(source)
    kept = cache_folder() / "fits" / f"{_fingerprint(table, how)}.nc"
    if kept.is_file():
        from bayescale.fitfile import load_fit

        try:
            return load_fit(kept)
        except FitError:
            kept.unlink()  # of another version, or damaged: made anew
    fitted = _fit(table, how)
    if fitted.options["method"] == "nuts":
        made_folder(kept.parent)
        fitted.save(kept)
    return fitted


def _fit(table: "RunTable", how: FitOptions, output: Path | None = None) -> "Fit":
    from typing import get_args

    from bayescale.errors import BayescaleError
    from bayescale.fitting import Method
    from bayescale.fitting import fit as make

    if how.method not in (methods := get_args(Method)):
        raise BayescaleError(f"--method: found {how.method!r}; expected one of {', '.join(methods)}")
    options = asdict(how)
    options["priors"] = priors_given(options.pop("prior"), noise=how.noise, discrepancy=how.discrepancy)
    fitted = make(table, **options, progress=say)
    if output:
        fitted.save(output)
    return fitted


def _fingerprint(table: "RunTable", how: FitOptions) -> str:
    from hashlib import sha256
    from importlib.metadata import version

    digest = sha256(table.frame.to_csv().encode())
    digest.update(json.dumps([table.meta.model_dump(), asdict(how), version("bayescale")]).encode())
    return digest.hexdigest()[:32]


def _with_published(fitted: "Fit") -> "pd.DataFrame":
    """Add the published values of the same law on the same table to a fit's summary."""
    from bayescale.publishedfits import published_fits_of

    summary = fitted.summary()
    for published in published_fits_of(fitted.table, fitted.law.formula):
        values = [published.constants.get(str(p), float("nan")) for p in summary.index]
        summary[published.name] = values
    return summary


def _forecast_rows(row: "pd.Series", fitted: "Fit") -> "tuple[pd.DataFrame, str]":
    import pandas as pd

    inputs = ", ".join(
        f"{row[c]:.4g} {'FLOP' if c == 'compute' else c}"
        for c in row.index
        if not c.startswith(("loss", "expected_loss"))
    )
    rows = [
        {"quantity": title}
        | {"median": row[key]}
        | {
            f"{w} band": f"{row[f'{key}_{w}_low']:.4f} - {row[f'{key}_{w}_high']:.4f}"
            for w in ("50%", "80%", "90%")
        }
        | {"unit": "nats/token"}
        for key, title in (("expected_loss", "expected loss"), ("loss", "loss of a new run"))
    ]
    return pd.DataFrame(rows), f"{inputs} ({origin(fitted)})"
