import pytest

from benchmarks.trainers import ARMS, METHODS, run, table

FLOORS = {"class_fid_floor": 0.45, "label_accuracy_real": 0.998}


def row(trainer, method, seed, class_fid, accuracy):
    return {
        "trainer": trainer, "method": method, "seed": seed,
        "class_fid": class_fid, "label_accuracy": accuracy, **FLOORS,
    }  # fmt: skip


def test_the_table_has_means_and_intervals_over_the_seeds_and_the_floor():
    rows = [
        row(trainer, method, seed, 10 + number + seed, 0.5 + 0.1 * seed)
        for number, (trainer, method) in enumerate(ARMS)
        for seed in range(2)
    ]
    lines = table(rows).splitlines()
    assert len(lines) == 2 + len(ARMS) + 1
    assert lines[2] == "| plain loop | labels as given | 10.5 ± 6.4 | 0.55 ± 0.64 |"
    assert lines[-1] == "| | real images | 0.45 | 0.998 |"
    assert all(METHODS[method] in line for (_, method), line in zip(ARMS, lines[2:], strict=False))
    assert "± " not in table(rows[::2])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_both_trainers_beat_plain_training_under_noise(tmp_path):
    pytest.importorskip("lightning")
    rows = {(r["trainer"], r["method"]): r for r in run(tmp_path, epochs=25, seeds=1)}
    for trainer, method in ARMS:
        if method != "plain":
            own, plain = rows[trainer, method], rows[trainer, "plain"]
            assert own["class_fid"] < plain["class_fid"]
            assert own["label_accuracy"] > plain["label_accuracy"]
