"""What a run left in each of its logs: name -> [(step, value), ...], timings left out."""

import csv
import json
import struct
from pathlib import Path

_TIMINGS = ("images_per_second", "scoring_seconds", "preparing_seconds")


def _rest(points):
    timed = {name for name in points if name.endswith(_TIMINGS)}
    return {name: points[name] for name in points.keys() - timed}


def history(run):
    """Return the values of metrics.jsonl."""
    return _points(json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())


def table(run):
    """Return the values of metrics.csv."""
    with (run / "metrics.csv").open() as file:
        return _points({k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file))


def _points(entries):
    points = {}
    for entry in entries:
        for name, value in entry.items():
            if name != "step" and value is not None:
                points.setdefault(name, []).append((entry["step"], value))
    return _rest(points)


def tensorboard(run):
    """Return the scalars, and the steps of everything else."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tb"), {"images": 0, "histograms": 0, "tensors": 0})
    tags = board.Reload().Tags()
    points = {tag: [(e.step, e.value) for e in board.Scalars(tag)] for tag in tags["scalars"]}
    for kind, read in (("images", board.Images), ("histograms", board.Histograms)):
        points |= {tag: [e.step for e in read(tag)] for tag in tags[kind]}
    # TensorBoard drops no tensors, so a curve that is written again is there twice, as it was.
    points |= {tag: sorted({e.step for e in board.Tensors(tag)}) for tag in tags["tensors"]}
    return _rest(points)


def mlflow(run):
    """Return the metrics, and the steps of the grids."""
    from mlflow import MlflowClient

    client, number = MlflowClient(), json.loads((run / "logs.json").read_text())["mlflow"]["run_id"]
    names = client.get_run(number).data.metrics
    points = {k: [(m.step, m.value) for m in client.get_metric_history(number, k)] for k in names}
    grids = [Path(file.path).stem for file in client.list_artifacts(number, "samples")]
    return _rest(points), sorted(int(name.removeprefix("step-")) for name in grids)


def wandb(run):
    """Return what the offline files of all sessions hold, and the steps of the grids."""
    points, names, grids = {}, set(), []
    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        for record in _records(path.read_bytes()):
            if record.HasField("run"):
                names.add(record.run.run_id)
            if record.HasField("history"):
                items = record.history.item
                row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                for name, value in row.items():
                    if name.startswith(("train/", "scores/")):
                        points.setdefault(name, []).append((row["_step"], value))
                grids += [row["_step"]] if "samples/one_column_per_class/path" in row else []
    assert len(names) == 1
    return _rest(points), grids


def _records(data):
    """Read the records of wandb's file, a log of LevelDB: parts within blocks of 32 KiB."""
    from wandb.proto import wandb_internal_pb2

    at, parts = 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record
