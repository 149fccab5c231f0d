"""A checkout nobody may write, names with spaces and signs, a state elsewhere that is not there yet: as by default."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from aiohttp import web
from prefect.settings import PREFECT_SERVER_DATABASE_CONNECTION_URL

from tests.servers.postgres_server import Postgres, postgres_server
from tests.servers.web_server import chat_completion, served

ROOT = Path(__file__).parents[2]
CODE = ("flows", "leastwise", "tasks", "use_cases", "infra", "expectations")
# Root may write anything, so the checkout is mounted once more, read-only, for the command alone.
MOUNTED = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$0" && exec "$@"'


@pytest.fixture
def endpoint() -> Iterator[str]:
    """A model that says yes."""

    async def yes(_: web.Request) -> web.Response:
        return chat_completion("m", "yes", 20, 1)

    with served(web.post("/v1/chat/completions", yes)) as address:
        yield f"{address}/v1"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The code in a folder with a space in its name, without its own state."""
    folder = tmp_path / "a check out"
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def case(tmp_path: Path, endpoint: str) -> Path:
    """A use case beside its table, both with names that a URI has to write in another way."""
    folder = tmp_path / "my use cases, 100% mine #1"
    folder.mkdir()
    rows = {"id": [f"r{i}" for i in range(40)], "text": [f"text {i}" for i in range(40)], "label": "yes"}
    pd.DataFrame(rows).to_parquet(folder / "the gate.parquet")
    model = {"uri": "openai:m", "base_url": endpoint, "price": {"input": 0.1, "cached": 0.01, "output": 0.4}}
    case = {
        "name": "anywhere",
        "task": {"instruction": "Yes or no?", "labels": ["yes", "no"]},
        "data": {"gate": "the gate.parquet"},
        "requirements": {"quality": {"bound": 0.8, "margin": 0.3}},
        "traffic": {"requests_per_month": 1000},
        "models": {"candidates": [model]},
        "allow_no_test": True,
        "alpha": 0.2,
    }
    (folder / "my case.yaml").write_text(yaml.safe_dump(case))
    return folder / "my case.yaml"


def read_only(checkout: Path, command: list[str]) -> list[str]:
    """The command as it runs in a checkout that it cannot write."""
    unshared = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNTED, str(checkout)]
    if shutil.which("unshare") and subprocess.run([*unshared, "true"], capture_output=True).returncode == 0:
        return [*unshared, *command]
    for path in [checkout, *checkout.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    return command


@pytest.mark.soak
def test_a_stage_runs_from_a_checkout_that_cannot_be_written_with_its_state_where_there_is_none_yet(
    checkout: Path, case: Path, tmp_path: Path, empty_tracking: Path
) -> None:
    state = tmp_path / "not there yet" / "a state, 50% full #2"
    tracking = tmp_path / "tracking.db"
    shutil.copy(empty_tracking, tracking)  # setting one up takes seconds
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
    own = {"LEASTWISE_HOME": str(state), "MLFLOW_TRACKING_URI": f"sqlite:///{tracking}", "OPENAI_API_KEY": "none"}
    command = read_only(checkout, [sys.executable, "-m", "flows.prompt", str(case)])
    done = subprocess.run(command, cwd=checkout, env=kept | own, capture_output=True, text=True, timeout=400)
    (line,) = done.stdout.splitlines()
    ending = json.loads(line)
    assert (done.returncode, ending["outcome"]) == (0, "PASS"), done.stderr
    assert ending["calls_paid"] > 0 and "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert {"ledger.db", "responses.db", "mlartifacts", "prefect"} <= {each.name for each in state.iterdir()}
    assert sorted(each.name for each in checkout.iterdir()) == sorted([*CODE, "pyproject.toml"])


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    with postgres_server(tmp_path / "server") as server:
        yield server


def test_a_climb_on_postgres_costs_a_second_machine_nothing_audits_as_by_default_and_its_password_is_written_nowhere(
    postgres: Postgres, case: Path, tmp_path: Path, prefect_api: str
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))}
    own = {
        "PREFECT_API_URL": prefect_api,  # machines that share a state share a Prefect server
        "LEASTWISE_STATE": postgres.uri,
        "MLFLOW_TRACKING_URI": postgres.uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": str(tmp_path / "artifacts"),
        "OPENAI_API_KEY": "none",
    }
    climbs, said, states = [], "", [tmp_path / "state of one", tmp_path / "state of two"]
    for state, flow, of, outcome in (
        (states[0], "customize", str(case), "prompt"),
        (states[1], "customize", str(case), "prompt"),
        (states[1], "audit", "anywhere", "agrees"),
    ):
        command, environment = [sys.executable, "-m", f"flows.{flow}", of], kept | own | {"LEASTWISE_HOME": str(state)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
        (line,) = done.stdout.splitlines()
        assert (done.returncode, json.loads(line)["outcome"]) == (0, outcome), done.stderr
        assert "Traceback" not in done.stderr
        climbs.append(json.loads(line))
        said += done.stdout + done.stderr
    first, second, _ = climbs
    assert first["calls_paid"] > 0 and first["usd_spent"] > 0
    assert (second["calls_paid"], second["usd_spent"]) == (0, 0.0), "the answers of the first machine are there"
    files = [each for state in states for each in state.rglob("*") if each.is_file()]
    assert not {"ledger.db", "responses.db"} & {each.name for each in files}
    database = Path(str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value()).partition(":///")[2])
    files += database.parent.glob(f"{database.name}*")
    assert database in files
    written = b"".join(each.read_bytes() for each in files)
    assert b"gate-prompt" in written, "what the flows told Prefect is looked through"
    assert postgres.password.encode() not in said.encode() + written + rows_of(postgres)


def rows_of(postgres: Postgres) -> bytes:
    """Every row of every table, as text."""
    import psycopg

    with psycopg.connect(postgres.uri.replace("+psycopg", "")) as connection:
        query = (
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'leastwise')"
        )
        tables = connection.execute(query).fetchall()
        return b"".join(
            str(connection.execute(f"SELECT * FROM {name}").fetchall()).encode()  # type: ignore[arg-type]  # its own names
            for (name,) in tables
        )
