"""The colour of a cell: diverging around 0 for gains, else from the lowest mean to the highest; text stays readable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plotly.colors import sample_colorscale, unlabel_rgb

from pages.ui import charts, study_words

SCOPE = "scale: all cells shown but the controls, which stay grey"


@dataclass(frozen=True)
class Scale:
    """Range of the colours, in the metric's unit; diverging: symmetric around 0."""

    low: float
    high: float
    diverging: bool

    @classmethod
    def of(cls, means: Sequence[float], metric: str) -> Scale:
        """The scale that holds all means of the contenders shown; the controls are grey and set no scale."""
        if metric == "srg" or any(mean < 0 for mean in means):
            widest = max((abs(mean) for mean in means), default=0.0) or 1.0
            return cls(-widest, widest, True)
        low, high = min(means, default=0.0), max(means, default=1.0)
        return cls(low, high if high > low else low + 1.0, False)

    def colours(self, value: float) -> dict[str, str]:
        """Background and text of a cell."""
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        background = sample_colorscale(charts.DIVERGING if self.diverging else "Cividis", [share])[0]
        # Relative luminance (WCAG 2.2, gamma 2.2): from 0.18 on black reads better than white, at least 4.5 : 1.
        red, green, blue = ((part / 255) ** 2.2 for part in unlabel_rgb(background))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18
        return {"background": background, "color": "#000000" if dark else "#FFFFFF"}

    def legend(self, metric: str) -> dict[str, object]:
        """Stops of the colour bar, its ends in words, its title with scope and direction."""
        scale = charts.DIVERGING if self.diverging else "Cividis"
        way = study_words.direction(metric)
        ends = [study_words.value(self.low, metric), study_words.value(self.high, metric)]
        better = {"lower": 0, "higher": 1}.get(way)
        if better is not None:
            ends[better] += " better"
        return {
            "stops": sample_colorscale(scale, [n / 10 for n in range(11)]),
            "low": ends[0],
            "high": ends[1],
            "title": " · ".join(filter(None, [study_words.plain_metric(metric), study_words.unit(metric), SCOPE])),
        }
