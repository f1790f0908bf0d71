import numpy as np
import pytest
import torch

from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import PREDICTIONS, per_image
from robustdiff.diffusion.schedules import cosine
from robustdiff.labels.judge import posterior
from robustdiff.training.objective import ClassMixture, clean_prior, mixed_output

MEANS = torch.tensor([[-1.0, 0.5], [0.0, 2.0], [1.5, -0.5]])
PRIOR = torch.tensor([0.5, 0.2, 0.3])
T = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.0, 0.5, 0.5]])
SPREAD = 0.4


def log_likelihoods(x_t, t):
    """Log p(x_t | y) of Gaussian classes, (B, 3), up to a constant; images are (B, 2, 1, 1)."""
    alpha, sigma = (part[:, None, None] for part in cosine(t.double()))
    distance = (x_t.double().flatten(1)[:, None] - alpha * MEANS.double()).square().sum(2)
    return -distance / (2 * (alpha**2 * SPREAD**2 + sigma**2)[:, :, 0])


class ExactClassifier(torch.nn.Module):
    def forward(self, x_t, t):
        return log_likelihoods(x_t, t) + PRIOR.double().log()


def exact_eps(x_t, t, labels):
    """-sigma_t times the score of one class."""
    x = x_t.double().requires_grad_()
    chosen = log_likelihoods(x, t).gather(1, labels[:, None]).sum()
    return -per_image(cosine(t)[1], x) * torch.autograd.grad(chosen, x)[0]


def points(count=6):
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(count, 2, 1, 1, generator=generator)
    return x_t, torch.linspace(0.3, 0.9, count), torch.arange(count) % 3


@pytest.mark.parametrize("name", PREDICTIONS)
def test_mixed_class_scores_are_the_score_given_the_noisy_label(name, monkeypatch):
    monkeypatch.setattr("robustdiff.training.objective._SMALLEST_WEIGHT", 0.0)
    x_t, t, given = points()
    alpha, sigma = (per_image(part.double(), x_t.double()) for part in cosine(t))

    def network(x_t, t, labels):
        a, s = (per_image(part.double(), x_t.double()) for part in cosine(t))
        eps = exact_eps(x_t, t, labels)
        x_0 = (x_t - s * eps) / a
        return {"eps": eps, "x0": x_0, "v": a * eps - s * x_0}[name]

    mixture = ClassMixture(T, PRIOR, ExactClassifier())
    weights = mixture.weights(x_t, t, given).double()
    output = mixed_output(network, x_t, t, given, weights, gradient="all")
    x = x_t.double().requires_grad_()
    joint = log_likelihoods(x, t) + PRIOR.double().log() + T.double().T[given].log()
    score = torch.autograd.grad(joint.logsumexp(1).sum(), x)[0]
    eps = PREDICTIONS[name].to_eps(output, x_t.double(), alpha, sigma)
    torch.testing.assert_close(eps, -sigma * score, rtol=1e-5, atol=1e-5)


def test_weights_are_bayes_and_leave_missing_labels_alone():
    x_t, t, given = points()
    labels = given.clone()
    labels[2] = 3
    weights = ClassMixture(T, PRIOR, ExactClassifier()).weights(x_t, t, labels)
    assert weights[2].tolist() == [0, 0, 0, 1]
    assert (weights[labels != 3, 3] == 0).all()
    classes = ExactClassifier()(x_t, t).softmax(1).numpy()
    kept = labels != 3
    expected = posterior(classes, T.double().numpy(), given.numpy())
    np.testing.assert_allclose(weights[kept, :3], expected[kept], atol=1e-6)


def test_class_level_weights_forget_the_image():
    x_t, t, given = points()
    weights = ClassMixture(T, PRIOR, None).weights(x_t, t, given)
    expected = (PRIOR[:, None] * T / (PRIOR @ T)).T
    torch.testing.assert_close(weights[:, :3], expected[given])


def test_gradients_reach_all_classes_or_the_given_one():
    x_t, t, given = points()
    weights = torch.tensor([[0.5, 0.3, 0.195, 0.005]]).expand(6, 4)
    outputs = {}
    for which in ("all", "given"):
        table = torch.arange(1.0, 5.0, requires_grad=True)
        output = mixed_output(
            lambda x, t, y, table=table: x * per_image(table[y], x),
            x_t, t, given, weights, gradient=which,
        )  # fmt: skip
        outputs[which] = output.detach()
        output.square().sum().backward()
        assert table.grad[3] == 0  # below the smallest weight
        reached = table.grad != 0
        assert reached[:3].all()
        if which == "given":
            only = mixed_output(
                lambda x, t, y, table=table: x * per_image(table[y], x),
                x_t[:1], t[:1], given[:1], weights[:1], gradient="given",
            )  # fmt: skip
            grad = torch.autograd.grad(only.sum(), table)[0]
            assert (grad != 0).tolist() == [True, False, False, False]
    torch.testing.assert_close(outputs["all"], outputs["given"])
    mean = (0.5 * 1 + 0.3 * 2 + 0.195 * 3) / 0.995
    torch.testing.assert_close(outputs["all"], x_t * mean)


def test_many_equally_likely_classes_are_all_mixed():
    x_t, t, _ = points(2)
    weights = torch.nn.functional.pad(torch.full((2, 200), 1 / 200), (0, 1))
    output = mixed_output(
        lambda x, t, y: x * per_image(y.float(), x),
        x_t, t, torch.tensor([0, 7]), weights, gradient="all",
    )  # fmt: skip
    torch.testing.assert_close(output, x_t * 99.5, rtol=1e-4, atol=1e-4)


def test_an_identity_matrix_is_the_plain_objective():
    x_t, t, given = points()
    model = Model(lambda x, t, y: x * per_image(1.0 + y, x), cosine, PREDICTIONS["v"], 3)
    labels = torch.where(torch.arange(6) == 1, 3, given)
    weights = ClassMixture(torch.eye(3), PRIOR, ExactClassifier()).weights(x_t, t, labels)
    mixed = mixed_output(model.network, x_t, t, labels, weights, gradient="all")
    torch.testing.assert_close(mixed, model.network(x_t, t, labels))


def test_the_clean_prior_makes_the_given_shares():
    prior = PRIOR.double().numpy()
    counts = np.rint(prior @ T.double().numpy() * 100_000).astype(int)
    given = np.repeat(np.arange(3), counts)
    np.testing.assert_allclose(clean_prior(given, T.double().numpy()), prior, atol=0.01)


def test_a_mixture_survives_its_state():
    from robustdiff.classifiers.noisy_image import TimeClassifier

    x_t, t = torch.randn(4, 1, 8, 8), torch.rand(4)
    for classifier in (None, TimeClassifier(1, 3).eval()):
        mixture = ClassMixture(T, PRIOR, classifier)
        again = ClassMixture.from_state(mixture.state_dict())
        given = torch.tensor([0, 1, 2, 3])
        assert torch.equal(again.weights(x_t, t, given), mixture.weights(x_t, t, given))


def test_weights_by_the_label_alone_do_not_give_the_clean_scores():
    """tdsm-class is inconsistent: on Gaussian classes its minimiser misses the score of the class.

    Its minimiser f solves sum_y p(y | given) f_y(x) = score(x | given) at every x; with the weights
    of the image, p(y | x, given), the clean scores solve it.
    """
    means, noise = torch.tensor([-1.5, 0.0, 1.5], dtype=torch.float64), 0.4
    transition = torch.full((3, 3), noise / 2).double().fill_diagonal_(1 - noise)
    x = torch.linspace(-4, 4, 401, dtype=torch.float64)[:, None]
    density = torch.exp(-((x - means) ** 2) / 2)  # p(x | y), up to a factor
    clean_scores = means - x
    behind = transition.T / transition.T.sum(1, keepdim=True)  # p(y | given), equal classes
    image = density[:, None] * behind
    image = image / image.sum(2, keepdim=True)  # p(y | x, given)
    noisy_scores = (image * clean_scores[:, None]).sum(2)

    def error(found):
        weights = density / density.sum()
        return float((weights * (found - clean_scores) ** 2).sum().sqrt())

    by_image = torch.linalg.solve(image, noisy_scores[..., None])[..., 0]
    by_label = torch.linalg.solve(behind, noisy_scores.T).T
    assert error(by_image) < 1e-9
    assert error(by_label) > 0.5 * error(noisy_scores) > 0.1
