"""Reports: one self-contained HTML page that says what was asked, what came out, and whether to believe it.

No network, no JavaScript: the law is MathML, figures are inline, the page prints and reads on a phone.
"""

from bayescale.reports.page import report

__all__ = ["report"]
