"""Train on digits with 30 % wrong labels, generate, evaluate, ask which labels look wrong."""

import robustdiff

run = robustdiff.train("digits", {"noise.rate": 0.3, "curriculum.name": "pmi", "train.steps": 400})
samples = robustdiff.sample(run, classes=[3, 5], per_class=8)  # uint8 images, their classes
figures = robustdiff.evaluate(run, {"eval.num_samples": 200})
verdict = robustdiff.audit(run)  # which labels look wrong
print(f"{figures['label_accuracy']:.2f} of the images show the class that was asked for")
print(f"{verdict.issue.sum()} of {len(verdict.given)} labels look wrong")
