"""Checkpoints where every machine reaches them: whole ones only, the newest first, none left at the end."""

import json
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.stores import storage
from leastwise.training.causal.checkpoints import SharedCheckpoints, last_checkpoint
from leastwise.training.machines import shared_files


@pytest.fixture(params=["file", "s3"])
def shared(request, server, tmp_path, monkeypatch) -> SharedCheckpoints:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    root = f"s3://{server.bucket}/{request.node.name}" if request.param == "s3" else f"file://{tmp_path}/shared"
    return SharedCheckpoints(root, "abc")


def saved(folder: Path, step: int, best: str = "") -> Path:
    """A checkpoint as the trainer leaves one; `best` is the name of the one that did best."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "deep").mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(b"moments" * step)
    (checkpoint / "deep" / "weights.safetensors").write_bytes(bytes(range(step)))
    state = {"global_step": step, "best_model_checkpoint": str(folder / best) if best else None}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    return checkpoint


def there(shared: SharedCheckpoints) -> set[str]:
    return (
        {file.partition("/abc/")[2] for file in storage.files_below(shared._root)}
        if storage.exists(shared._root)
        else set()
    )


def test_another_machine_goes_on_from_the_newest_and_finds_the_best_where_it_now_lies(shared, tmp_path):
    here, elsewhere = tmp_path / "a", tmp_path / "b"
    saved(here, 10)
    saved(here, 20, "checkpoint-10")
    shared.put(here)
    shared.fetch(elsewhere)
    found = last_checkpoint(elsewhere)
    assert found == elsewhere / "checkpoint-20" and (found / "deep" / "weights.safetensors").read_bytes() == bytes(
        range(20)
    )
    state = json.loads((found / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(elsewhere / "checkpoint-10")
    assert (elsewhere / "checkpoint-10" / "optimizer.pt").read_bytes() == b"moments" * 10
    assert not list(elsewhere.glob(".*")), "no half of a download is left"


def test_what_the_trainer_no_longer_keeps_is_removed_and_at_the_end_everything(shared, tmp_path):
    import shutil

    here = tmp_path / "a"
    first = saved(here, 10)
    shared.put(here)
    saved(here, 20)
    shutil.rmtree(first)
    shared.put(here)
    assert {name.partition("/")[0] for name in there(shared)} == {"checkpoint-20", "checkpoint-20.json"}
    shared.remove()
    assert not there(shared)
    shared.remove()


@pytest.mark.parametrize("harm", ["cut off", "changed", "no list", "list cut off", "best gone"])
def test_one_that_is_not_whole_is_passed_over_for_the_one_before(shared, tmp_path, harm, caplog):
    here, elsewhere = tmp_path / "a", tmp_path / "b"
    saved(here, 10)
    shared.put(here)
    saved(here, 15)
    saved(here, 20, "checkpoint-15")
    shared.put(here)
    root = shared._root
    {
        "cut off": lambda: shared_files.remove(f"{root}/checkpoint-20/optimizer.pt"),
        "changed": lambda: storage.write_bytes(f"{root}/checkpoint-20/optimizer.pt", b"other"),
        "no list": lambda: shared_files.remove(f"{root}/checkpoint-20.json"),
        "list cut off": lambda: storage.write_bytes(f"{root}/checkpoint-20.json", b'{"optimizer.pt"'),
        "best gone": lambda: [storage.write_bytes(f"{root}/checkpoint-15/optimizer.pt", b"other")],
    }[harm]()
    shared.fetch(elsewhere)
    found = last_checkpoint(elsewhere)
    assert found is not None and found.name == ("checkpoint-10" if harm == "best gone" else "checkpoint-15")
    assert harm == "no list" or "passed over" in caplog.text
    assert not (elsewhere / "checkpoint-20").exists()


def test_a_local_one_that_is_as_new_is_gone_on_from(shared, tmp_path):
    here, other = tmp_path / "a", tmp_path / "b"
    saved(other, 20)
    shared.put(other)
    mine = saved(here, 20)
    (mine / "optimizer.pt").write_bytes(b"mine")
    shared.fetch(here)
    assert (mine / "optimizer.pt").read_bytes() == b"mine"


def test_who_was_taken_for_dead_removes_nothing_newer(shared, tmp_path):
    late, taken_over = tmp_path / "a", tmp_path / "b"
    saved(taken_over, 40)
    shared.put(taken_over)
    saved(late, 30)
    shared.put(late)
    assert {name.partition("/")[0] for name in there(shared)} >= {"checkpoint-40", "checkpoint-30"}


def test_a_storage_that_fails_is_said_and_the_training_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    saved(tmp_path / "a", 10)
    SharedCheckpoints("s3://bucket/x", "abc").put(tmp_path / "a")
    assert "could not be put" in caplog.text and last_checkpoint(tmp_path / "a") is not None


def test_a_folder_nobody_may_write_to_is_refused_before_the_first_step(tiny, tmp_path):
    from leastwise.training.settings import TrainingSettings
    from leastwise.training.training import fine_tune
    from leastwise.training.training_rows import Row

    (tmp_path / "file").write_text("")
    settings = TrainingSettings(checkpoints=f"file://{tmp_path}/file/below", max_examples=4)
    with pytest.raises(BadInput, match="a file stands where a folder is needed"):
        fine_tune(tiny, [Row("a", "b")], [], settings, tmp_path / "out")
