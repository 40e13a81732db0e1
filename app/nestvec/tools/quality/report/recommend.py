"""Recommends the smallest form of a model's vectors for each budget of quality."""

from collections.abc import Sequence
from typing import Final

from nestvec.corpus.reports.forms.measure import VariantScore
from nestvec.corpus.reports.forms.variants import Variant
from nestvec.tools.quality.report.report import UNJUDGED, Recommendation, main_metrics

# Shares of quality that may be lost.
BUDGETS: Final = (0.01, 0.02, 0.05)


def recommend(figures: Sequence[VariantScore]) -> list[Recommendation]:
    """Return for each budget the form of fewest bytes whose measured loss is within it, on every judged task.

    Agreement with full vectors counts where nobody judged anything: it is the harsher measure by far.
    """
    main = main_metrics(figures)
    figures = [figure for figure in figures if main[figure.task] == figure.metric]
    figures = [figure for figure in figures if figure.metric != UNJUDGED] or figures
    by_variant: dict[Variant, list[VariantScore]] = {}
    for figure in figures:
        by_variant.setdefault(figure.variant, []).append(figure)
    worst = [max(scores, key=lambda score: score.loss.score) for scores in by_variant.values()]
    full = next(score for score in worst if score.variant.source.status == "full")
    recommendations = []
    for budget in BUDGETS:
        within = [score for score in worst if score.loss.score <= budget]
        best = min(
            within,
            key=lambda score: (score.variant.bytes, -score.variant.source.layers, score.loss.score),
        )
        recommendations.append(_recommendation(budget, best, full))
    return recommendations


def _recommendation(budget: float, best: VariantScore, full: VariantScore) -> Recommendation:
    """Return the recommendation of a form, in words."""
    variant, loss = best.variant, best.loss
    times = full.variant.bytes / variant.bytes
    if variant == full.variant:
        return Recommendation(budget, f"At most {budget:.0%} loss: only full vectors.", None)
    text = (
        f"At most {budget:.0%} loss: {variant.label}: {variant.bytes} bytes a vector, {times:.3g} times smaller. "
        f"Measured loss {loss.score:.1%} (95% interval {loss.low:.1%} to {loss.high:.1%}) of {best.metric} on "
        f"{best.task}, n = {loss.n}."
    )
    if loss.high > budget:
        text += (
            " The interval reaches beyond the budget: measure on more texts before you rely on it."
        )
    return Recommendation(budget, text, best)
