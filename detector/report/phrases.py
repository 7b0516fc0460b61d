"""Numbers and sentences that the text and the pages share."""

from __future__ import annotations

from detector.analysis.comparing import PairComparison
from detector.evaluation.bootstrap import Interval


def without_objects(classes: int) -> str:
    """State the number of classes that have no AP because no image has an object of theirs."""
    if classes == 1:
        return "1 class has no objects in these images and is not in the mean"
    return f"{classes} classes have no objects in these images and are not in the mean"


def signed(value: float) -> str:
    """Format a difference with its sign and four decimals."""
    return f"{value:+.4f}"


def span(interval: Interval) -> str:
    """Format the limits of an interval."""
    return f"{interval.low:.4f} to {interval.high:.4f}"


def sides(low: float, high: float) -> str:
    """Format a range of sizes, px; infinity is open.

    >>> [sides(0, 32), sides(96, float("inf"))]
    ['0 to 32 px', 'from 96 px']
    """
    return f"from {low:g} px" if high >= 1e5 else f"{low:g} to {high:g} px"


def verdict(pair: PairComparison) -> str:
    """Say whether a difference is significant at the 5 % level, with the p-value."""
    significant = pair.difference.low > 0 or pair.difference.high < 0
    return (
        f"the difference is {'' if significant else 'not '}statistically significant: p = {pair.p_value:.3g}, "
        f"{pair.difference.resamples:,} bootstrap resamples of the images, the same for both"
    )
