"""A stage of a climb on two machines: one of them seemed lost and lives, behind a cable that was pulled."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leastwise.errors import BadInput
from leastwise.record import client as tracking
from leastwise.run_id import RunId
from tasks import climb as climbing
from tests.servers.postgres_server import Postgres, postgres_server

CLIMB = RunId("of-two-machines")


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    with postgres_server(tmp_path / "server") as server:
        yield server


def test_who_takes_a_stage_over_waits_until_whoever_is_at_it_has_ended(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(climbing, "AGAIN_S", 0.05)
    monkeypatch.setenv("LEASTWISE_STATE", postgres.uri.replace("+psycopg", ""))
    done: list[str] = []

    def second() -> None:
        with climbing.alone_at(CLIMB, "fine_tune"):
            done.append("second")

    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "one"))  # a state directory stands for a machine
    with climbing.alone_at(CLIMB, "fine_tune"):
        monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "two"))
        other = threading.Thread(target=second)
        other.start()
        with climbing.alone_at(CLIMB, "distill"):  # another stage is free
            time.sleep(0.5)
        done.append("first")
    other.join(20)
    assert done == ["first", "second"]


def test_a_tracking_server_that_is_started_again_is_waited_for_by_a_climb_that_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(tracking, "AGAIN_S", 0.05)
    with pytest.raises(BadInput, match="cannot be reached"):
        tracking.connect()
    back: list[socket.socket] = []
    again = threading.Timer(0.4, lambda: back.append(socket.create_server(("127.0.0.1", port))))
    again.start()
    assert tracking.connect(patience_s=20) is not None
    again.join()
    back[0].close()
