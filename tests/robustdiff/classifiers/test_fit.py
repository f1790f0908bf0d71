from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from robustdiff.classifiers.fit import Fit, Recipe, early_learning, forward_corrected


def test_forward_correction_compares_the_given_label_with_what_the_matrix_makes_of_the_class():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    transition = np.array([[0.7, 0.2, 0.1], [0.0, 0.9, 0.1], [0.3, 0.3, 0.4]])
    expected = -np.log((logits.double().softmax(1).numpy() @ transition)[range(5), labels]).mean()
    assert forward_corrected(logits, labels, transition).item() == pytest.approx(expected, abs=1e-5)
    plain = forward_corrected(logits, labels, np.eye(3))
    torch.testing.assert_close(plain, F.cross_entropy(logits, labels))


def test_early_learning_pulls_towards_what_was_learnt():
    logits, learnt = torch.zeros(4, 3, requires_grad=True), torch.eye(3)[[0, 1, 2, 0]]
    loss = early_learning(logits, learnt, 2.0)
    assert loss.item() == pytest.approx(2 * np.log(2 / 3), abs=1e-5)
    loss.backward()
    assert (logits.grad[learnt.bool()] < 0).all()
    assert (logits.grad[~learnt.bool()] > 0).all()


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_a_restored_fit_takes_the_same_steps(optimiser):
    def new():
        torch.manual_seed(0)
        return Fit(torch.nn.Linear(4, 3), Recipe(optimiser, 0.1, 1e-3, 8), 20)

    def steps(fit, count):
        for _ in range(count):
            fit.step((inputs,), partial(F.cross_entropy, target=labels))
        return fit.network.weight

    inputs, labels = torch.randn(8, 4), torch.arange(8) % 3
    whole, first, second = steps(new(), 20), new(), new()
    steps(first, 7)
    second.load_state_dict(first.state_dict())
    assert torch.equal(steps(second, 13), whole)


def test_the_rate_rises_and_falls_to_nothing():
    fit = Fit(torch.nn.Linear(1, 2), Recipe("sgd", 0.5, 0.0, 1), 10)
    rates = [fit.optimiser.param_groups[0]["lr"]]
    for _ in range(10):
        fit.step((torch.ones(1, 1),), lambda logits: logits.sum())
        rates.append(fit.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1, 0.3, *np.linspace(0.5, 0, 9)])
