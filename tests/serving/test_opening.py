"""A version is fetched once a machine, and never taken for another one of that number."""

from pathlib import Path

import mlflow
import pytest

from leastwise.serving.opening import fetched_version


def registered(folder: Path, content: str) -> str:
    """A version of the model `toy` in the present registry that is this one file."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "said.txt").write_text(content)
    client = mlflow.MlflowClient()
    if not client.search_registered_models("name = 'toy'"):
        client.create_registered_model("toy")
    return str(client.create_model_version("toy", source=(folder / "model").as_uri()).version)


def said(version: str) -> str:
    return (fetched_version("toy", version) / "said.txt").read_text()


def test_versions_whose_files_lie_in_folders_of_one_name_or_in_two_registries_are_not_taken_for_each_other(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = f"sqlite:///{home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", first)
    mlflow.set_tracking_uri(first)
    one, two = registered(tmp_path / "a", "one"), registered(tmp_path / "b", "two")
    assert (said(one), said(two), said(one)) == ("one", "two", "one")

    second = f"sqlite:///{tmp_path / 'other.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", second)
    mlflow.set_tracking_uri(second)
    assert registered(tmp_path / "c", "elsewhere") == one
    assert said(one) == "elsewhere"
