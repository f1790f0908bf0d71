import pytest

from robustdiff.reports.verdict import verdict


@pytest.mark.parametrize(
    ("auroc", "said"),
    [(0.43, "ranks wrong labels above right ones"), (0.5, "as chance does"), (0.58, "hardly")],
)
def test_a_score_that_finds_no_wrong_labels_says_so(auroc, said):
    sentence = verdict("dynamics-uncond", {"auroc": auroc})
    assert said in sentence
    assert f"AUROC {auroc:.3f}" in sentence
    assert "docs/dynamics.md" in sentence
    assert "docs" not in verdict("random", {"auroc": auroc})


@pytest.mark.parametrize(
    ("curriculum", "advice"),
    [
        ("pmi", "finds more: crossfit"),
        ("crossfit", "may find more: --judge-features, --judge-probs"),
    ],
)
def test_no_curriculum_is_advised_in_its_own_place(curriculum, advice):
    sentence = verdict(curriculum, {"auroc": 0.5})
    assert sentence.endswith(advice)
    assert sentence.count(curriculum) == 1


def test_nothing_is_said_of_a_score_that_finds_them_or_whose_truth_is_not_known():
    assert verdict("pmi", {"auroc": 0.98}) is None
    assert verdict("dynamics-uncond", None) is None
