"""The log of a run in MLflow, in the store that `MLFLOW_TRACKING_URI` names, or its default."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from robustdiff.config.layers import flat, to_plain
from robustdiff.config.sections import Config
from robustdiff.errors import InterruptedRunError
from robustdiff.progress import Report
from robustdiff.reports.logs import (
    STATE_NAME,
    Entry,
    Follow,
    marker,
    named,
    new_entries,
    read_state,
    tried,
    write_state,
)
from robustdiff.runs.folder import Run
from robustdiff.runs.history import sample_grids

_FOLDER = "samples"
# A request takes at most 1000 values, of which an entry has fewer than 20, and 100 parameters.
_ENTRIES, _PARAMS = 50, 100
_UNREACHABLE = (MlflowException, OSError, ImportError)
# Of MLflow's own seven tries, each waits twice as long as the one before: four minutes in all.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")


def check() -> None:
    """Refuse a store that does not answer.

    Raises:
        ValueError: If so.
    """
    try:
        MlflowClient().search_experiments(max_results=1)
    except _UNREACHABLE as error:
        raise ValueError(f"log 'mlflow' cannot use {_store()}: {_short(error)}") from error


def _store() -> str:
    """Return the address of the store without names and passwords."""
    uri = urlsplit(str(mlflow.get_tracking_uri()))
    return uri._replace(netloc=uri.netloc.rpartition("@")[2]).geturl()


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())


@contextmanager
def following(run: Run, config: Config, report: Report) -> Iterator[Follow]:
    """Open the run's log, a resumed run's own, and close it in the end.

    What MLflow has already is not sent again, so it has every entry once. While a store does not
    answer, entries wait for the next checkpoint.

    Args:
        run: The run.
        config: Its configuration.
        report: Receives what goes wrong.

    Raises:
        ValueError: If the store does not have the log of a resumed run.
    """
    client, run_id = _opened(run, config, report)
    send = _sender(client, run_id, run)

    def follow(step: int) -> None:
        otherwise = "mlflow gets the entries with the next checkpoint"
        tried(lambda: send(step), _UNREACHABLE, otherwise, report)

    status = "FAILED"
    try:
        yield follow
        status = "FINISHED"
    except InterruptedRunError:
        status = "KILLED"
        raise
    finally:
        otherwise = "mlflow does not know that the run has ended"
        tried(lambda: client.set_terminated(run_id, status), _UNREACHABLE, otherwise, report)


def _opened(run: Run, config: Config, report: Report) -> tuple[MlflowClient, str]:
    """Return a client and the run's name there, which logs.json keeps."""
    state = read_state(run, "mlflow")
    named_store = "MLFLOW_TRACKING_URI" in os.environ
    uri = mlflow.get_tracking_uri()
    if not named_store:  # the default depends on the working directory
        uri = state.get("store") or uri
    client = MlflowClient(tracking_uri=uri)
    try:
        run_id = state.get("run_id") or _created(client, run)
        client.update_run(run_id, status="RUNNING")
        _describe(client, run_id, config)
    except _UNREACHABLE as error:
        raise ValueError(
            f"log 'mlflow' of run {run.path} cannot go on: {_short(error)}; set "
            f"MLFLOW_TRACKING_URI as at its start, or remove its entry from {STATE_NAME}"
        ) from error
    # An address may hold a password, so that of the environment is not kept.
    write_state(run, "mlflow", {"run_id": run_id} | ({} if named_store else {"store": uri}))
    report.message(f"mlflow: run {run_id}")
    return client, run_id


def _created(client: MlflowClient, run: Run) -> str:
    number = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if number is None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "robustdiff")
        found = client.get_experiment_by_name(name)
        number = client.create_experiment(name) if found is None else found.experiment_id
    return str(client.create_run(number, run_name=run.path.name).info.run_id)


def _describe(client: MlflowClient, run_id: str, config: Config) -> None:
    # MLflow refuses a parameter that changes, such as the length of a run that has grown.
    known = client.get_run(run_id).data.params
    settings = flat(to_plain(config))
    params = [Param(key, json.dumps(v)) for key, v in settings.items() if key not in known]
    for start in range(0, len(params), _PARAMS):
        client.log_batch(run_id, params=params[start : start + _PARAMS])


def _sender(client: MlflowClient, run_id: str, run: Run) -> Follow:
    """Return what sends the entries and grids that MLflow lacks."""
    last: dict[str, int] = {}

    def send(step: int) -> None:
        there = dict(last)
        last.clear()  # until all is sent, MLflow alone knows what it has
        for kind in {marker(entry) for entry in new_entries(run, there)} - there.keys():
            made = [metric.step for metric in client.get_metric_history(run_id, kind)]
            there[kind] = max(made, default=-1)
        entries = new_entries(run, there)
        for start in range(0, len(entries), _ENTRIES):
            values = [m for entry in entries[start : start + _ENTRIES] for m in _metrics(entry)]
            client.log_batch(run_id, metrics=values)
        files = {file.path.rpartition("/")[2] for file in client.list_artifacts(run_id, _FOLDER)}
        for file in sample_grids(run, step).values():
            if file.name not in files:
                client.log_artifact(run_id, str(file), _FOLDER)
        last.update(there | {marker(entry): entry["step"] for entry in entries})

    return send


def _metrics(entry: Entry) -> list[Metric]:
    """Return the values of an entry; its marker comes last, so that it says the rest is there."""
    now, last = int(time.time() * 1000), marker(entry)
    values = sorted(named(entry).items(), key=lambda pair: pair[0] == last)
    return [Metric(name, value, now, entry["step"]) for name, value in values]
