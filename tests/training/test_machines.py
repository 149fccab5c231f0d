"""Machines that train together: they share a URI and a port, say who is missing or gone, and none is left training."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from leastwise.errors import BadInput
from leastwise.models.weights import directory_hash
from leastwise.stores import storage
from leastwise.training import training_worker
from leastwise.training.machines import line as line_of
from leastwise.training.machines.guest import Guest, arrive
from leastwise.training.machines.meeting import Meeting, meeting
from leastwise.training.machines.published import Call, Published, calls_at
from leastwise.training.request import TrainingRequest
from leastwise.training.settings import TrainingSettings
from leastwise.training.training_processes import environment, launched, with_place
from leastwise.use_case.training import Launch, Training

ROW = {"input_ids": [1, 2], "labels": [-100, 2]}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Guests of these tests do not leave by themselves."""
    monkeypatch.setattr("leastwise.training.machines.meeting._LEAVE_S", 0.3)
    monkeypatch.setattr("leastwise.training.training_processes._HEARD_S", 1.0)


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def call_for(nodes: int) -> Call:
    launch = Launch(nodes=nodes, meet_at=f"127.0.0.1:{free_port()}", join_within_s=5)
    return Call(key="k", word="w" * 32, launch=launch, base="b")


def comes(call: Call, number: int) -> Guest:
    guest = arrive(call, number)
    assert isinstance(guest, Guest), guest
    return guest


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Met:
    """A meeting of three that has begun."""

    def __init__(self, call: Call, met: Meeting) -> None:
        self.call, self.met = call, met
        self.guests = [comes(call, 1), comes(call, 2)]
        places: list[object] = []
        ready = [threading.Thread(target=lambda each=each: places.append(each.place())) for each in self.guests]
        for each in ready:
            each.start()
        self.place = met.gather()
        for each in ready:
            each.join()
        assert [(each.host, each.port, each.interface) for each in places] == [
            (self.place.host, self.place.port, "lo")
        ] * 2


@pytest.fixture
def met() -> Iterator[Met]:
    with ExitStack() as stack:
        call = call_for(3)
        yield Met(call, stack.enter_context(meeting(call)))


def test_machines_that_are_missing_are_named_when_the_time_is_up(monkeypatch):
    call = call_for(4)
    now = call.model_copy(update={"launch": call.launch.model_copy(update={"join_within_s": 0})})
    with (
        pytest.raises(BadInput, match=r"machines 1, 3 of 4 did not come to 127\.0\.0\.1:\d+ within 0 s.*--join K"),
        meeting(now) as waiting,
    ):
        guest = comes(now, 2)
        waiting.gather()
    until(lambda: guest.ended is not None)
    assert "machines 1, 3" in str(guest.ended), "who has come hears it too"


def test_one_that_leaves_ends_the_others_and_is_named(met):
    met.met.check()
    met.guests[1].close()
    assert "machine 2 (" in met.met.lost(5) and "is gone" in met.met.lost()
    with pytest.raises(RuntimeError, match=r"machine 2 .*goes on from its last checkpoint"):
        met.met.check()
    threading.Timer(0.1, met.guests[0].close).start()  # it ends its processes and leaves
    met.met.end("machine 2 is gone")
    until(lambda: met.guests[0].ended == "machine 2 is gone")


def test_one_that_is_done_is_not_lost_and_one_that_fails_says_why(met):
    met.guests[0].done()
    met.guests[0].close()
    met.guests[1].failed("CUDA out of memory")
    assert met.met.lost(5).endswith("failed: CUDA out of memory") and "machine 1" not in met.met.lost()


@pytest.mark.parametrize("network", ["open", "cut"])
def test_a_machine_that_is_silent_is_given_up_on_both_sides(monkeypatch, network):
    monkeypatch.setattr(line_of, "SILENT_S", 0.4)
    monkeypatch.setattr(line_of, "BEAT_S", 0.1 if network == "open" else 30.0)
    call = call_for(2)
    with meeting(call) as waiting:
        guest = comes(call, 1)
        threading.Thread(target=guest.place).start()
        waiting.gather()
        lost = waiting.lost(1.0)
        assert ("not heard of" in lost) == (network == "cut")
        until = time.monotonic() + (10.0 if network == "cut" else 0.0)
        while not guest.ended and time.monotonic() < until:
            time.sleep(0.02)
        assert bool(guest.ended) == (network == "cut")
        guest.done()
        guest.close()


def test_who_has_not_read_the_request_is_not_let_in_and_a_number_is_given_once(met):
    stranger = met.call.model_copy(update={"word": "x" * 32})
    assert "another training meets there" in str(arrive(stranger, 1))
    assert "is there already" in str(arrive(met.call, 1)), "its connection of before may not be dropped"
    with pytest.raises(BadInput, match="machine 3 is none of 1 to 2"):
        arrive(met.call, 3)
    with socket.create_connection(("127.0.0.1", int(met.call.launch.meet_at.rpartition(":")[2]))) as noise:
        noise.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert noise.recv(100) == b""
    met.met.check()


def test_a_port_that_is_taken_is_said_and_nobody_there_is_no_failure():
    call = call_for(2)
    with meeting(call), pytest.raises(BadInput, match=r"meet_at: port \d+ cannot be listened at"), meeting(call):
        pass
    assert "refused" in str(arrive(call, 1))


def test_what_came_later_to_a_launch_changes_no_key_while_it_is_not_used():
    assert "join_within_s" not in Launch(processes=2).model_dump_json()
    assert (
        TrainingSettings(launch=Launch()).identity()
        == TrainingSettings(
            launch=Launch(processes=2, nodes=2, meet_at="a:1", request="s3://b/p", join_within_s=60)
        ).identity()
    )
    assert Training.model_validate_json(Training().model_dump_json()) == Training()


# --- what is handed over ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "s3"])
def published(request, server, tmp_path, monkeypatch) -> Published:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    name = f"published-{abs(hash(request.node.name))}"
    return Published(f"s3://{server.bucket}/{name}/" if request.param == "s3" else f"file://{tmp_path}/{name}")


@pytest.fixture
def asked(tiny) -> TrainingRequest:
    settings = TrainingSettings(launch=Launch(nodes=2, meet_at="a:1"))
    return TrainingRequest(base=tiny, encoded=[ROW], watched=[], settings=settings, teacher=tiny)


def test_a_machine_with_nothing_but_the_uri_has_the_request_and_fetches_the_base_once(published, asked, tmp_path):
    home = tmp_path / "empty"
    with published.called(asked) as call:
        assert calls_at(published.uri) == [call]
        assert calls_at(f"{published.uri.rstrip('/')}/{asked.key}.call.json") == [call]
        here = published.here(call, home)
        assert here.key == asked.key and here.encoded == asked.encoded
        assert here.base == here.teacher == home / "models" / directory_hash(asked.base)
        stamps = {path: path.stat().st_mtime_ns for path in here.base.iterdir()}
        assert published.here(call, home).base == here.base
        assert stamps == {path: path.stat().st_mtime_ns for path in here.base.iterdir()}
    assert calls_at(published.uri) == [], "it is there as long as it is trained"
    there = set(storage.files_below(published.uri))
    with published.called(asked):
        again = {name for name in storage.files_below(published.uri) if "/bases/" in name}
    assert again == {name for name in there if "/bases/" in name}, "the base is put once"


@pytest.mark.parametrize("harm", ["changed", "gone", "rows"])
def test_what_is_not_what_was_put_is_not_trained_on(published, asked, tmp_path, harm):
    with published.called(asked) as call:
        root = published.uri.rstrip("/")
        file = f"{root}/bases/{call.base}/config.json"
        {
            "changed": lambda: storage.write_bytes(file, b"{}"),
            "gone": lambda: storage.write_bytes(f"{root}/bases/{call.base}.json", b'{"model.safetensors": "0"}'),
            "rows": lambda: storage.write_bytes(
                f"{root}/{call.key}.rows.json",
                storage.read_bytes(f"{root}/{call.key}.rows.json").replace(b"[1,2]", b"[1,3]"),
            ),
        }[harm]()
        with pytest.raises(BadInput, match=r"is not what was put|same version"):
            published.here(call, tmp_path / "empty")
        assert harm == "rows" or not (tmp_path / "empty" / "models" / call.base).exists()


def test_a_request_of_another_version_is_refused_by_name(tmp_path):
    (tmp_path / "k.call.json").write_text('{"key": "k", "unknown": 1}')
    with pytest.raises(BadInput, match=r"k\.call\.json: is no request of this version"):
        calls_at(f"file://{tmp_path}")


def test_without_a_uri_machines_go_by_a_folder_beside_what_is_made(asked, tmp_path):
    out = tmp_path / "adapters" / "made"
    assert with_place(asked, out).settings.checkpoints == (tmp_path / "adapters" / "made.shared").as_uri()

    def placed(checkpoints: str, request: str) -> str:
        launch = asked.settings.launch.model_copy(update={"request": request})
        settings = asked.settings.model_copy(update={"launch": launch, "checkpoints": checkpoints})
        return with_place(asked.model_copy(update={"settings": settings}), out).settings.checkpoints

    assert placed("", "s3://b/r") == "s3://b/r" and placed("s3://b/c", "") == "s3://b/c"
    assert placed("s3://b/c", "s3://b/r") == "s3://b/r", "where the request is, checkpoints are too"
    alone = asked.model_copy(update={"settings": TrainingSettings()})
    assert with_place(alone, out) is alone


# --- processes of two machines, a program of the test's in place of those that train ---------------------------------

MAKES = """
import json, pathlib, sys
asked = pathlib.Path(sys.argv[1])
if sys.argv[2] == "0":
    out = asked.with_name(asked.name.removesuffix(".request.json"))
    out.mkdir()
print("made", sys.argv[2])
"""
WAITS = "import time; time.sleep(600)"


@pytest.fixture
def two(asked, tmp_path, monkeypatch):
    """Starts both machines, each with its program, and gives what came of the first and the status of the other."""
    monkeypatch.setenv("LEASTWISE_HOME", str(tmp_path / "other"))
    launch = Launch(nodes=2, meet_at=f"127.0.0.1:{free_port()}", request=f"file://{tmp_path}/shared", join_within_s=20)
    out = tmp_path / "one" / "made"
    request = with_place(asked.model_copy(update={"settings": TrainingSettings(launch=launch), "teacher": None}), out)

    def both(programs: list[str]) -> tuple[Exception | None, int]:
        monkeypatch.setattr(
            "leastwise.training.training_processes.command",
            lambda launch, node, asked: [sys.executable, "-S", "-c", programs[node], str(asked), str(node)],
        )
        found: list[Exception | None] = []

        def first() -> None:
            try:
                launched(request, launch, out, lambda progress: None)
                found.append(None)
            except Exception as error:
                found.append(error)

        started = threading.Thread(target=first)
        started.start()
        status = training_worker.join(launch.request, 1, 20, stays=False)
        started.join()
        assert calls_at(launch.request) == []
        return found[0], status

    return both


def test_each_machine_starts_its_processes_and_only_the_first_has_what_is_made(two, tmp_path):
    error, status = two([MAKES, MAKES])
    assert error is None and status == 0
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["made"]
    assert not list((tmp_path / "other" / "joined").iterdir())


def test_a_machine_whose_processes_fail_ends_those_of_the_first_which_says_why(two):
    started = time.monotonic()
    error, status = two([WAITS, "raise SystemExit('no such kernel')"])
    assert status == 1 and time.monotonic() - started < 20
    assert "machine 1" in str(error) and "no such kernel" in str(error) and "last checkpoint" in str(error)


def test_what_fails_on_the_first_ends_the_others(two, capsys, caplog):
    error, status = two(["raise SystemExit('disk full')", WAITS])
    assert status == 1 and "disk full" in str(error)
    assert "the first machine ended" in caplog.text and "disk full" in caplog.text


def test_a_machine_that_nobody_calls_says_so(tmp_path):
    with pytest.raises(BadInput, match=r"nothing to join within 0 s: no training was called .*launch\.request"):
        training_worker.join(f"file://{tmp_path}/nowhere", 1, 0, stays=False)


def test_processes_of_several_machines_speak_by_the_interface_that_reaches_them(monkeypatch):
    several = Launch(nodes=2, meet_at="a:1")
    assert environment(several, "eth7")["GLOO_SOCKET_IFNAME"] == "eth7"
    assert environment(Launch())["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    assert environment(several, "eth7")["NCCL_SOCKET_IFNAME"] == "ib0", "what the machine says goes first"
