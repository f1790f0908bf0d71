"""What a score that does not find wrong labels means, and which scores do."""

# AUROC below which a score is not worth a curriculum, and the half-width of chance around .5.
_FINDS, _CHANCE = 0.6, 0.05


def verdict(curriculum: str, detected: dict[str, float] | None) -> str | None:
    """Say how little a score knows of wrong labels, and what to try in its place.

    Args:
        curriculum: Name of the curriculum whose score it is.
        detected: Detection metrics of its final scores, None where they are not known.

    Returns:
        A sentence, None where the score finds wrong labels or nobody can tell.
    """
    if detected is None or detected["auroc"] >= _FINDS:
        return None
    if detected["auroc"] < 0.5 - _CHANCE:
        rank = "ranks wrong labels above right ones"
    elif detected["auroc"] < 0.5 + _CHANCE:
        rank = "ranks labels as chance does"
    else:
        rank = "hardly finds wrong labels"
    advice = "A curriculum that finds more: crossfit"
    if curriculum == "crossfit":
        advice = "Evidence of your own may find more: --judge-features, --judge-probs"
    why = " (docs/dynamics.md says why)" if curriculum.startswith("dynamics") else ""
    return (
        f"the score of {curriculum} {rank}: AUROC {detected['auroc']:.3f}, chance .5{why}. {advice}"
    )
