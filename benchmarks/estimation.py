"""How well the noise is estimated without clean labels: the table of docs/label-noise.md.

python benchmarks/estimation.py prints it in Markdown; some seconds. Class probabilities are the
shares of the 20 nearest neighbours' labels among the 1,797 digits, five-fold out of sample.

"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from corruptions import Estimate, NoisyLabels, confident_joint, corrupt, score_mixture

NOISE = {
    "none": ("symmetric", (0.0,)),
    "symmetric": ("symmetric", (0.2, 0.4, 0.6)),
    "pairflip": ("pairflip", (0.2, 0.4)),
    "asymmetric": ("asymmetric", (0.2, 0.4)),
    "instance-dependent-unit": ("instance-dependent-unit", (0.2, 0.4)),
}
SEEDS = range(5)


def by_mixture(given: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Score each label by its margin over the likeliest other class."""
    rows = np.arange(len(given))
    others = probabilities.copy()
    others[rows, given] = -1
    margin = probabilities[rows, given] - others.max(axis=1)
    k = probabilities.shape[1]
    return score_mixture(given, margin, others.argmax(axis=1), k, zero=0.0)


ESTIMATORS = {"confident joint": confident_joint, "score mixture": by_mixture}


def errors(labels: NoisyLabels, pixels: np.ndarray) -> list[float]:
    """Return |rate error| and mean |matrix error| of each estimator."""
    model = KNeighborsClassifier(n_neighbors=20)
    probabilities = cross_val_predict(model, pixels, labels.given, cv=5, method="predict_proba")
    found = []
    for estimator in ESTIMATORS.values():
        estimate = estimator(labels.given, probabilities)
        found.append(abs(estimate.rate - labels.realised_rate))
        found.append(np.abs(estimate.transition - labels.realised).mean())
    return found


def main() -> None:
    """Print the table."""
    digits = load_digits()
    heads = [f"{name}: {what}" for name in ESTIMATORS for what in ("rate", "matrix")]
    print("| noise | realised rate |", " | ".join(heads), "|")
    print("|---" * (len(heads) + 2) + "|")
    for name, (noise_type, rates) in NOISE.items():
        for rate in rates:
            made = [
                corrupt(
                    digits.target,
                    num_classes=10,
                    noise_type=noise_type,
                    rate=rate,
                    seed=seed,
                    dataset="digits",
                    features=digits.images * (255 / 16),
                )
                for seed in SEEDS
            ]
            found = np.array([errors(labels, digits.data / 16) for labels in made])
            realised = np.mean([labels.realised_rate for labels in made])
            spread = found.std(axis=0, ddof=1)
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(found.mean(axis=0), spread, strict=True)]
            print(f"| {name} {rate:g} | {realised:.3f} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
