"""The report of a study: one file that can be mailed and still explains itself in two years, as HTML or PDF."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from audit_core.card import LOOKS, figures
from audit_core.errors import BadData, InvalidParameter
from audit_core.params import parameters
from audit_core.study import report_figures, report_words
from audit_core.study.criteria import Criteria
from audit_core.study.published import METRIC, SOURCE
from audit_core.study.report_content import LISTED, Content, Ranking, gather
from audit_core.study.report_svg import Drawing

ENDINGS = (".html", ".pdf")
TEMPLATE = "report.html.jinja"


def write(folder: Path, out: Path) -> None:
    """Write the report of the study in ``folder`` to ``out``, an .html or a .pdf file; other endings are refused."""
    made = document(folder, out.suffix.lower())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(made)
    except OSError as error:
        raise BadData(f"{out} cannot be written ({error}); give another place") from None


def document(folder: Path, ending: str) -> bytes:
    """The report as the bytes of a file, for a download; ending: ".html" or ".pdf"."""
    if ending not in ENDINGS:
        raise InvalidParameter(f"a report ends in {' or '.join(ENDINGS)}; got {ending!r}")
    page = html(folder)
    return page.encode() if ending == ".html" else pdf(page)


def html(folder: Path, resamples: int = 2000) -> str:
    """One self-contained page: charts are inline, nothing is fetched, user text is escaped; equal results, equal text.

    folder: of a study, finished or running. Dates are those of its manifest. ``BadData`` where there are no results.
    """
    content = gather(folder, resamples)
    drawings = {ranking.metric: _drawings(content, ranking) for ranking in content.rankings}
    return _template().render(
        c=content,
        drawings=drawings,
        terms=report_words.TERMS,
        source=SOURCE,
        comparable=comparable,
        parameters=parameters(Criteria),
        asked_for=content.criteria.to_json(),
        looks=LOOKS,
        listed=LISTED,
    )


def pdf(page: str) -> bytes:
    """The page of :func:`html` on A4; ``InvalidParameter`` where WeasyPrint is not installed."""
    try:
        import weasyprint
    except (ImportError, OSError) as missing:
        raise InvalidParameter(
            f"a PDF needs WeasyPrint, which does not start here ({str(missing).splitlines()[0]}); pip install "
            "weasyprint and its Pango library, or write .html and print that"
        ) from None
    made: bytes = weasyprint.HTML(string=page, url_fetcher=_nothing).write_pdf()
    return made


def _nothing(url: str, *_: object, **__: object) -> dict[str, Any]:  # Any: what WeasyPrint expects of a fetcher
    raise ValueError(f"a report is one file and fetches nothing, got {url!r}")


def _drawings(content: Content, ranking: Ranking) -> dict[str, Drawing]:
    """The charts of one metric that there is something to draw for."""
    front = set(content.native)
    if ranking.view and ranking.view.schemes[-1].pairs[:1] and ranking.view.schemes[-1].pairs[0].reverses:
        front |= {ranking.view.schemes[-1].pairs[0].first, ranking.view.schemes[-1].pairs[0].second}
    look, found = report_figures.looks(content.results.contenders, tuple(front)), {}
    if ranking.view:
        found["bump"] = report_figures.bump(ranking.view, look, f"bump-{ranking.metric}", comparable(content, ranking))
    if ranking.cells:
        fills = ranking.view.fills if ranking.view else content.results.fills_of(ranking.metric)
        found["means"] = report_figures.means(ranking.cells, fills, look, f"means-{ranking.metric}")
    if ranking.pairs:
        found["forest"] = report_figures.forest(ranking.pairs, f"forest-{ranking.metric}")
    return found


def comparable(content: Content, ranking: Ranking) -> bool:
    """Whether the published ranks speak of the same metric and data set."""
    return ranking.metric == METRIC and content.study.images.dataset.partition(":")[0] == "wm811k"


@cache
def _template() -> Any:  # Any: jinja2.Template
    rules = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    made = Environment(loader=FileSystemLoader(Path(__file__).parent), **rules)  # type: ignore[arg-type]
    made.filters |= {
        "figures": figures,
        "interval": lambda one: report_words.interval(one.low, one.high),
        "share": report_words.share,
        "metric": report_words.metric_title,
        "arrow": report_words.arrow,
        "shade": _shade,
        "breaks": _breaks,
    }
    made.globals["roles"] = report_words.ROLES
    return made.get_template(TEMPLATE)


def _shade(value: float) -> str:
    """Class of a table cell for a number in [-1, 1]: against (n1 to n5), none (p0), for (p1 to p5)."""
    step = 0 if value != value else round(5 * max(-1.0, min(1.0, value)))
    return f"{'n' if step < 0 else 'p'}{abs(step)}"


def _breaks(text: str) -> Markup:
    """The text, escaped, with places where a narrow column may break it."""
    made = escape(text)
    for mark in (":", ",", "="):
        made = made.replace(mark, mark + Markup("<wbr>"))
    return made
