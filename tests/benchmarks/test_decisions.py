import json

import numpy as np

from benchmarks.decisions import ORDERS, main


def test_decisions_by_gain_leave_the_fewest_wrong_labels(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 3, 600)
    given = np.where(rng.random(600) < 0.3, (clean + rng.integers(1, 3, 600)) % 3, clean)
    features = 1.8 * np.eye(3)[clean] + rng.normal(size=(600, 3)) * 0.8
    np.savez(tmp_path / "f.npz", features=features, given=given, clean=clean)
    out, figure = tmp_path / "out.json", tmp_path / "out.png"
    words = [f"three={tmp_path / 'f.npz'}", "--budget=100", f"--out={out}", f"--figure={figure}"]
    monkeypatch.setattr("sys.argv", ["decisions.py", *words])
    main()
    found = {order: runs[0] for order, runs in json.loads(out.read_text())["three"].items()}
    assert found.keys() == ORDERS.keys()
    start = {run[0]["wrong"] for run in found.values()}
    assert len(start) == 1
    assert {run[0]["alone"] for run in found.values()} == {float((given != clean).mean())}
    end = {order: run[-1]["wrong"] for order, run in found.items()}
    assert end["gain"] < min(end["random"], end["quality"])
    assert end["taught"] < min(end["random"], end["quality"])
    assert "| three | by gain, taught |" in capsys.readouterr().out
    assert figure.stat().st_size > 0
