"""The registry on a real SQLite MLflow: the log is written first, a crash between log and alias is made good."""

import itertools

import pytest

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.record import registry, run_record, tracking
from leastwise.record.registry import Move

NAMES = (f"case-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", str(tmp_path_factory.mktemp("registry")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield tracking.connect()


@pytest.fixture
def name(client) -> str:
    return next(NAMES)


def version(client, name: str, model: str) -> str:
    """A registered version of a synthetic candidate."""
    run = client.create_run(tracking.experiment(client, name), tags={"leastwise.kind": "stage"})
    run_record.log_candidate(client, run, Candidate(stage="prompt", model=f"openai:{model}", venue="api"))
    return registry.register(client, name, run.info.run_id)


def champion_of(client, name: str) -> str:
    found = registry.champion(client, name)
    return found.candidate.model if found else ""


def test_registering_moves_no_alias_and_registering_again_makes_no_second_version(client, name):
    first = version(client, name, "a")
    made = client.get_model_version(name, first)
    assert registry.champion(client, name) is None and registry.challenger(client, name) is None
    assert registry.register(client, name, made.run_id) == first
    assert made.source.startswith("models:/m-")


def test_a_run_without_a_candidate_cannot_be_registered(client, name):
    run = client.create_run(tracking.experiment(client, name))
    with pytest.raises(BadInput, match=r"no candidate.*stage"):
        registry.register(client, name, run.info.run_id)


def test_a_promotion_is_logged_with_what_it_replaced(client, name):
    a, b = version(client, name, "a"), version(client, name, "b")
    registry.promote(client, name, a, "first")
    registry.promote(client, name, b, "better")
    assert champion_of(client, name) == "openai:b"
    logged = [(m.number, m.event, m.before, m.after, m.reason, m.finished) for m in registry.log(client, name)]
    assert logged == [(1, "promote", "", a, "first", True), (2, "promote", a, b, "better", True)]


def test_promoting_the_champion_again_changes_and_logs_nothing(client, name):
    a = version(client, name, "a")
    registry.promote(client, name, a, "first")
    assert registry.promote(client, name, a, "again") is None
    assert len(registry.log(client, name)) == 1


def test_a_version_that_is_not_there_is_refused_before_anything_is_logged(client, name):
    version(client, name, "a")
    with pytest.raises(Exception, match="not found"):
        registry.promote(client, name, "99", "typo")
    assert registry.log(client, name) == []


def test_the_log_is_written_before_the_alias_and_a_crash_between_them_is_made_good(client, name, monkeypatch):
    a, b = version(client, name, "a"), version(client, name, "b")
    registry.promote(client, name, a, "first")
    with monkeypatch.context() as crashing:
        crashing.setattr(type(client), "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(client, name, b, "better")
    assert str(client.get_model_version_by_alias(name, "champion").version) == a
    assert [(m.after, m.finished) for m in registry.log(client, name)] == [(a, True), (b, False)]
    assert champion_of(client, name) == "openai:b"  # whoever asks next finishes the move
    assert all(m.finished for m in registry.log(client, name))


def test_a_crash_after_the_alias_moved_leaves_one_entry_not_two(client, name, monkeypatch):
    a = version(client, name, "a")
    with monkeypatch.context() as crashing:
        crashing.setattr(type(client), "set_terminated", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(client, name, a, "first")
    registry.promote(client, name, a, "first")
    assert [(m.after, m.finished) for m in registry.log(client, name)] == [(a, True)]


def killed(*_args, **_kwargs):
    raise KeyboardInterrupt


def test_rollback_makes_the_predecessor_champion_and_again_the_one_before(client, name):
    for model in ("a", "b", "c"):
        registry.promote(client, name, version(client, name, model), model)
    registry.rollback(client, name, "worse in production")
    assert champion_of(client, name) == "openai:b"
    registry.rollback(client, name, "that too")
    assert champion_of(client, name) == "openai:a"
    with pytest.raises(BadInput, match="no predecessor"):
        registry.rollback(client, name, "nothing left")
    assert [m.event for m in registry.log(client, name)] == ["promote"] * 3 + ["rollback"] * 2


def test_a_promoted_challenger_is_a_challenger_no_longer(client, name):
    a = version(client, name, "a")
    registry.challenge(client, name, a, "new data")
    assert registry.challenger(client, name).version == a
    registry.promote(client, name, a, "not worse")
    assert registry.challenger(client, name) is None


def move(event: str, before: str, after: str) -> Move:
    return Move("", 0, event, before, after, "", True)


@pytest.mark.parametrize(
    ("moves", "now", "line"),
    [
        ([], "", []),
        ([], "7", ["7"]),  # set by hand, nothing logged
        ([("promote", "", "1")], "1", ["1"]),
        ([("promote", "", "1"), ("promote", "1", "2"), ("rollback", "2", "1")], "1", ["1"]),
        ([("promote", "", "1"), ("promote", "1", "2"), ("promote", "2", "1")], "1", ["1", "2", "1"]),
        ([("promote", "", "1"), ("challenge", "", "2")], "1", ["1"]),
        ([("promote", "", "1"), ("promote", "5", "2")], "2", ["1", "5", "2"]),  # 5 was set by hand in between
        ([("promote", "", "1")], "6", ["1", "6"]),
        ([("promote", "", "1"), ("rollback", "6", "1")], "1", ["1"]),  # back from one set by hand
    ],
)
def test_the_line_of_champions_is_read_from_the_log(moves, now, line):
    assert registry.champions([move(*each) for each in moves], now) == line
