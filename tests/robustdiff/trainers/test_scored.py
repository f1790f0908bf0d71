"""Labels that any denoiser scores, round by round."""

import io

import numpy as np
import pytest
import torch
from bright_rows import COUNT, K, bright_rows, denoiser
from torch import nn
from torch.utils.data import DataLoader

import robustdiff
from curricula import Selection
from robustdiff.trainers.scored import evaluating, round_due

IMAGES, CLEAN, GIVEN = bright_rows()
WRONG = GIVEN != CLEAN
LEVELS = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), dim=0)


def labels(**more):
    return robustdiff.ScoredLabels(IMAGES, GIVEN, num_classes=K, **more)


def test_before_the_first_round_labels_are_as_given():
    scored = labels()
    assert np.array_equal(scored.labels, GIVEN)
    assert scored.rounds == 0
    assert scored.scores is None
    assert np.isnan(scored.noise)
    assert not scored.wrong.any()
    assert (scored.weights == 1).all()
    assert scored.soft is None


@pytest.mark.parametrize("levels", [None, LEVELS, LEVELS.numpy()])
def test_a_round_finds_the_wrong_labels_by_any_schedule(levels):
    scored = labels(alphas_cumprod=levels)
    scored.score(denoiser(None if levels is None else LEVELS))
    assert scored.rounds == 1
    assert np.array_equal(scored.wrong, WRONG)
    assert scored.noise == pytest.approx(WRONG.mean(), abs=1e-6)
    assert np.array_equal(scored.labels, np.where(WRONG, K, GIVEN))
    assert [scored[i][1] for i in range(COUNT)] == scored.labels.tolist()


def test_times_are_those_of_the_schedule_and_labels_those_of_the_image_and_none():
    seen = []

    def predict(x_t, t, label):
        seen.append((t, label))
        return torch.zeros_like(x_t)

    labels(alphas_cumprod=LEVELS, probes=2, batch_size=16).score(predict)
    times, asked = (torch.cat(part) for part in zip(*seen, strict=True))
    assert times.dtype == torch.int64
    assert max(len(t) for t, _ in seen) == 16
    assert len(times) == COUNT * 2 * 2
    # From the log-SNR of the cosine's t = .5, about 0, to that of .95, about -5.
    assert 200 < int(times.min()) < 300
    assert 650 < int(times.max()) < 800
    assert (asked == K).sum() == COUNT * 2
    seen.clear()
    labels(probes=2).score(predict)
    times = torch.cat([t for t, _ in seen])
    assert times.dtype == torch.float64
    assert 0.5 < float(times.min()) < float(times.max()) < 0.95


def test_rounds_of_one_seed_are_equal_and_of_another_differ():
    found = []
    for seed in (0, 0, 1):
        scored = labels(seed=seed)
        scored.score(denoiser())
        found.append(scored.scores)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_other_treatments():
    drawn = labels(selection=Selection(treatment="select", k=0.5))
    assert len(drawn.sampler()) == COUNT
    drawn.score(denoiser())
    chosen = list(drawn.sampler())
    assert len(chosen) == len(drawn.sampler()) == COUNT // 2
    assert WRONG[chosen].mean() < 0.1
    weighed = labels(selection=Selection(treatment="reweight"))
    assert weighed[0][2] == 1
    weighed.score(denoiser())
    assert weighed[0][1] == GIVEN[0]
    assert weighed[0][2] == pytest.approx(weighed.weights[0])
    assert weighed[0][2] < 0.5
    weighed.load_state_dict(labels().state_dict())
    assert weighed[0][2] == 1
    with pytest.raises(ValueError, match="'relabel' needs a score that knows the classes"):
        labels(selection=Selection(treatment="relabel"))
    with pytest.raises(ValueError, match="unknown treatment 'drop'; choose from"):
        labels(selection=Selection(treatment="drop"))


def test_persistent_workers_see_the_labels_of_the_next_round():
    scored = labels()
    loader = DataLoader(
        scored, COUNT, num_workers=1, persistent_workers=True, multiprocessing_context="fork"
    )
    before = next(iter(loader))[1]
    scored.score(denoiser())
    after = next(iter(loader))[1]
    assert before.tolist() == GIVEN.tolist()
    assert after.tolist() == scored.labels.tolist() != GIVEN.tolist()


def test_the_state_goes_through_a_file_and_the_rounds_go_on_equally():
    first, second = labels(), labels()
    first.score(denoiser())
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert np.array_equal(second.labels, first.labels)
    assert [second[i][1] for i in range(COUNT)] == second.labels.tolist()
    for scored in (first, second):
        scored.score(denoiser())
    assert second.rounds == 2
    assert np.array_equal(second.scores, first.scores)
    # Before the first round there is nothing, and that can be restored, too.
    second.load_state_dict(labels().state_dict())
    assert np.array_equal(second.labels, GIVEN)
    assert second.rounds == 0
    few = robustdiff.ScoredLabels(IMAGES[:4], GIVEN[:4], num_classes=K)
    few.score(denoiser())
    other = few.state_dict()
    for state, says in (({}, "must be that of scored labels"), (other, "labels, got 4")):
        with pytest.raises(ValueError, match=says):
            second.load_state_dict(state)
    assert second.rounds == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"alphas_cumprod": [0.1, 0.5]}, r"numbers in \(0, 1\) that fall with t"),
        ({"alphas_cumprod": [[0.5, 0.1]]}, r"got shape \(1, 2\)"),
        ({"alphas_cumprod": [1.0, 0.5]}, r"in \(0, 1\)"),
        ({"alphas_cumprod": [0.9, 0.5, 0.6, 0.1]}, "got 0.5 before 0.6 at 1"),
        ({"alphas_cumprod": "abc"}, "got 'abc'"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"probes": 0}, "probes must be at least 1"),
        ({"batch_size": 1}, "batch_size at least 2"),
    ],
)
def test_bad_settings_are_refused(more, says):
    with pytest.raises(ValueError, match=says):
        labels(**more)


def test_a_bad_denoiser_is_one_line_and_changes_nothing():
    scored = labels()
    for predict, says in (
        (
            lambda x_t, t, label: x_t[:, 0],
            r"the noise of shape \(240, 1, 4, 4\), got \(240, 4, 4\)",
        ),
        (lambda x_t, t, label: (x_t,), "got tuple"),
        (lambda x_t, t, label: x_t * float("nan"), "scores must be finite, got nan for image 0"),
    ):
        with pytest.raises(ValueError, match=says):
            scored.score(predict)
    assert scored.rounds == 0
    assert np.array_equal(scored.labels, GIVEN)


def test_a_denoiser_that_breaks_later_is_refused_as_well():
    scored = labels()
    scored.score(lambda x_t, t, label: x_t * (1 + label.view(-1, 1, 1, 1)) / 9)
    before = scored.scores
    with pytest.raises(ValueError, match="scores must be finite, got nan for image 0"):
        scored.score(lambda x_t, t, label: x_t * float("nan"))
    assert scored.rounds == 1
    assert np.array_equal(scored.scores, before)


def test_when_rounds_are_due():
    assert [e for e in range(1, 12) if round_due(e, warmup=3, every=4)] == [3, 7, 11]
    with pytest.raises(ValueError, match="warmup and every must be at least 1, got 0 and 4"):
        round_due(1, 0, 4)


def test_evaluation_mode_ends_as_it_was_for_every_part():
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1).eval())
    with evaluating(network):
        assert not network[0].training
    assert network[0].training
    assert not network[1].training
