"""The looks of every picture: one style file, a few colours with fixed meanings, and the marks all share."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bayescale.errors import FitError
from bayescale.files import require_writable, written_aside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayescale.fitting import Fit

STYLE = Path(__file__).parent / "bayescale.mplstyle"
# Okabe & Ito's colours, told apart by all common forms of colour vision: ours, what is new, what others say.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
# Further curves, in order; the same as the style file's cycle.
CYCLE = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
FAILED = "diagnostics failed: do not rely on this"
# Characters that fit over the axes and a colour bar.
_TITLE_WIDTH = 72
# Of a posterior; enough for bands in a picture.
ENOUGH_DRAWS = 1000

LABELS = {
    "params": "parameters N",
    "tokens": "training tokens D",
    "unique_tokens": "distinct training tokens U",
    "compute": "training compute C (FLOP)",
    "loss": "loss (nats/token)",
    "tokens_per_param": "tokens per parameter D/N",
}


def styled[**P, R](draw: Callable[P, R]) -> Callable[P, R]:
    """Make a drawing function use our style, whatever style its caller has."""

    @wraps(draw)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        import matplotlib
        import matplotlib.pyplot as plt

        with plt.style.context(STYLE):
            drawn, interactive = draw(*args, **kwargs), plt.isinteractive()
        # The first figure settles the backend, and a notebook's turns this on: not ours to turn off again.
        matplotlib.interactive(interactive)
        return drawn

    return inner


def axes_or_new(ax: "Axes | None") -> "Axes":
    """Return `ax`, or the axes of a new figure."""
    import matplotlib.pyplot as plt

    return plt.subplots()[1] if ax is None else ax


def plain(text: str) -> str:
    """Return a text that holds no formulas for matplotlib to set, whatever it was called by people."""
    return text.replace("$", r"\$")


def title_of(*parts: str) -> str:
    """Join the parts of a title, on as many lines as the width of a figure needs."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) < _TITLE_WIDTH:
            lines[-1] += f", {part}"
        else:
            lines[-1] += ","
            lines.append(part)
    return "\n".join(lines)


def label(column: str) -> str:
    """Return what an axis of a run-table column says, with its unit where it has one."""
    return LABELS.get(column, column)


def draw_band(
    ax: "Axes",
    x: np.ndarray,
    draws: np.ndarray,
    *,
    colour: Any = BLUE,
    name: str = "",
    widths: Any = (0.9, 0.5),
) -> None:
    """Draw medians and bands of draws, shape (draw, point), over x; wide bands are paler."""
    for width, shade in zip(widths, (0.18, 0.35), strict=False):
        low, high = np.nanquantile(draws, [(1 - width) / 2, (1 + width) / 2], axis=0)
        text = f"{width:.0%} band{name}"
        ax.fill_between(x, low, high, color=colour, alpha=shade, lw=0, label=text)
    ax.plot(x, np.nanmedian(draws, axis=0), color=colour, lw=1.2)


def shade_extrapolation(ax: "Axes", last: float) -> None:
    """Shade what lies beyond the table, above `last`."""
    low, high = ax.get_xlim()
    if high > last:
        ax.axvspan(last, high, color=GREY, alpha=0.09, lw=0, label="extrapolation")
    ax.set_xlim(low, high)


def mark_failed(ax: "Axes | np.ndarray", fit: "Fit") -> None:
    """Write across `ax`, or above the panels, that the fit's diagnostics failed, if they did."""
    if not fit.diagnostics.passed:
        write_mark(ax, FAILED)


def write_mark(ax: "Axes | np.ndarray", text: str) -> None:
    """Write across `ax`, or above the panels, what is not to be relied on."""
    if isinstance(ax, np.ndarray):
        figure_of(ax).suptitle(text, color=ORANGE, weight="bold")
        return
    box = {"facecolor": "white", "edgecolor": ORANGE, "alpha": 0.9, "pad": 3}
    ax.text(0.02, 0.03, text, transform=ax.transAxes, color=ORANGE, weight="bold", bbox=box, zorder=10)


def require_params_and_tokens(fit: "Fit", what: str) -> None:
    """Raise unless the law is one of params and tokens.

    Raises
    ------
    FitError
        If it has other inputs.
    """
    if fit.law.inputs != ("N", "D"):
        raise FitError(
            f"law {fit.law.name!r} has inputs {', '.join(fit.law.inputs)}; {what} needs a law in "
            "params N and tokens D"
        )


def save_figure(ax: "Axes | np.ndarray", path: str | Path) -> None:
    """Write the figure of `ax`, in the format of the path's suffix, aside and then renamed.

    Raises
    ------
    BayescaleError
        If the file cannot be written or matplotlib has no such format.
    """
    suffix = _format_of(Path(path))
    with written_aside(path) as aside:
        write_figure(ax, aside, suffix)


def require_picture(path: str | Path, *, source: str = "") -> None:
    """Raise unless a picture can be made at `path`, not over `source`; said before long work, not after it.

    Raises
    ------
    BayescaleError
        As `save_figure`, or if `path` is the source.
    """
    _format_of(Path(path))
    require_writable(path, source=source)


def _format_of(path: Path) -> str:
    from matplotlib.backend_bases import FigureCanvasBase

    suffix = path.suffix.lstrip(".").lower()
    if suffix not in (formats := FigureCanvasBase.get_supported_filetypes()):
        raise FitError(f"{path}: no picture format {path.suffix!r}; expected one of {sorted(formats)}")
    return suffix


def write_figure(ax: "Axes | np.ndarray", file: Any, suffix: str) -> None:
    """Write the figure of `ax` to a path or a binary file; the same figure gives the same bytes."""
    import matplotlib.pyplot as plt

    with plt.style.context(STYLE):
        figure_of(ax).savefig(file, format=suffix, metadata={"Date": None} if suffix == "svg" else None)


def figure_of(ax: "Axes | np.ndarray") -> Any:
    """Return the figure that one axes, or an array of them, belongs to."""
    first = ax if not isinstance(ax, np.ndarray) else next(a for a in ax.ravel() if a is not None)
    return first.get_figure(root=True)
