"""Numbers, formulas and figures as pieces of HTML."""

import base64
import io
import math
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from bayescale.laws import Law


def number(value: Any, digits: int = 4) -> Markup:
    """Return a number for people: `digits` significant ones, powers of ten from a million on.

    >>> print(number(1.8949), number(2085.43), number(1.4e12))
    1.895 2,085 <span class="n">1.4&thinsp;&times;&thinsp;10<sup>12</sup></span>
    """
    x = float(value)
    if not math.isfinite(x):
        return Markup("&ndash;")
    if not _needs_power(x):
        whole = abs(x) >= 10 ** (digits - 1) or x == int(x)
        text = f"{x:,.0f}" if whole else f"{x:#.{digits}g}"
        return Markup(text.replace("-", "&minus;"))
    mantissa, exponent = _split(x, digits)
    times = "" if mantissa == "1" else f"{mantissa}&thinsp;&times;&thinsp;"
    return Markup(f'<span class="n">{times}{_power(exponent)}</span>')


def interval(low: Any, high: Any) -> Markup:
    """Return an interval, which may break after its dash on a narrow page."""
    if _needs_power(float(low)) and _needs_power(float(high)):
        (first, exponent), (second, other) = _split(float(low), 3), _split(float(high), 3)
        if exponent == other:
            return Markup(
                f"{first}&ndash;<wbr><span class='n'>{second}&thinsp;&times;&thinsp;{_power(exponent)}</span>"
            )
    return Markup("{}&ndash;<wbr>{}").format(number(low), number(high))


def _needs_power(x: float) -> bool:
    return math.isfinite(x) and x != 0 and not 1e-3 <= abs(x) < 1e6


def _split(x: float, digits: int) -> tuple[str, int]:
    """Return the mantissa, of three digits at most, and the exponent."""
    mantissa, exponent = f"{x:.{min(digits, 3) - 1}e}".split("e")
    return (mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa), int(exponent)


def _power(exponent: int) -> str:
    return f"10<sup>{exponent}</sup>".replace("-", "&minus;")


def percent(value: Any) -> str:
    """Return a share as a whole percentage."""
    return "–" if value != value else f"{100 * float(value):.0f}%"


def law_mathml(law: "Law") -> Markup:
    """Return the law typeset as MathML, which browsers draw without JavaScript."""
    from sympy.printing.mathml import mathml

    inputs = "<mo>,</mo>".join(mathml(law.symbol(i), printer="presentation") for i in law.inputs)
    right = mathml(law.expression, printer="presentation")
    return Markup(
        '<math display="block" xmlns="http://www.w3.org/1998/Math/MathML"><mrow>'
        f"<mi>L</mi><mrow><mo>(</mo>{inputs}<mo>)</mo></mrow><mo>=</mo>{right}</mrow></math>"
    )


def picture(ax: "Axes | np.ndarray", alt: str, *, suffix: str = "svg") -> Markup:
    """Return the figure of `ax` as an image inside the page, and close it."""
    import matplotlib.pyplot as plt

    from bayescale.plots.style import figure_of, write_figure

    file = io.BytesIO()
    write_figure(ax, file, suffix)
    plt.close(figure_of(ax))
    kind = {"svg": "image/svg+xml", "png": "image/png"}[suffix]
    data = base64.b64encode(file.getvalue()).decode()
    return Markup('<img alt="{}" src="data:{};base64,{}">').format(alt, kind, Markup(data))
