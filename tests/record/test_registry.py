"""The registry on a real SQLite MLflow: the log is written first, a crash between log and alias is made good."""

import itertools
import threading

import pytest

from leastwise.errors import BadInput
from leastwise.ladder.candidate import Candidate
from leastwise.record.client import connect, experiment_id
from leastwise.record.published.in_production import champions_at
from leastwise.record.published.moves import STARTED, Move, champions
from leastwise.record.registry import Registry
from leastwise.record.stage_run import StageRun
from leastwise.rows.use_case_file import load
from tests.workspaces import state_in

NAMES = (f"case-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def client(tmp_path_factory, empty_tracking):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEASTWISE_HOME", state_in(tmp_path_factory.mktemp("registry"), empty_tracking))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield connect()


@pytest.fixture
def registry(client) -> Registry:
    return Registry(client, next(NAMES))


def new_run(registry: Registry) -> StageRun:
    client = registry.client
    where = experiment_id(client, registry.use_case)
    return StageRun(client, client.create_run(where, tags={"leastwise.kind": "stage"}))


def version(registry: Registry, model: str) -> str:
    """A registered version of a synthetic candidate."""
    run = new_run(registry)
    run.log_candidate(Candidate(stage="prompt", model=f"openai:{model}", venue="api"), load("alert-triage"))
    return registry.register(run.again())


def champion_of(registry: Registry) -> str:
    found = registry.champion()
    return found.candidate.model if found else ""


def test_registering_moves_no_alias_and_registering_again_makes_no_second_version(registry):
    first = version(registry, "a")
    made = registry.client.get_model_version(registry.use_case, first)
    assert registry.champion() is None and registry.challenger() is None
    assert registry.register(StageRun.read(registry.client, made.run_id)) == first
    assert made.source.startswith("models:/m-")


def test_a_run_without_a_candidate_cannot_be_registered(registry):
    with pytest.raises(BadInput, match=r"no candidate.*stage"):
        registry.register(new_run(registry))


def test_a_promotion_is_logged_with_what_it_replaced(registry):
    a, b = version(registry, "a"), version(registry, "b")
    registry.promote(a, "first")
    registry.promote(b, "better")
    assert champion_of(registry) == "openai:b"
    logged = [(m.number, m.event, m.before, m.after, m.reason, m.finished) for m in registry.log()]
    assert logged == [(1, "promote", "", a, "first", True), (2, "promote", a, b, "better", True)]


def test_promoting_the_champion_again_changes_and_logs_nothing(registry):
    a = version(registry, "a")
    registry.promote(a, "first")
    assert registry.promote(a, "again") is None
    assert len(registry.log()) == 1


def test_a_version_that_is_not_there_is_refused_before_anything_is_logged(registry):
    version(registry, "a")
    with pytest.raises(Exception, match="not found"):
        registry.promote("99", "typo")
    assert registry.log() == []


def test_the_log_is_written_before_the_alias_and_a_crash_between_them_is_made_good(registry, monkeypatch):
    a, b = version(registry, "a"), version(registry, "b")
    registry.promote(a, "first")
    with monkeypatch.context() as crashing:
        crashing.setattr(type(registry.client), "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(b, "better")
    assert str(registry.client.get_model_version_by_alias(registry.use_case, "champion").version) == a
    assert [(m.after, m.finished) for m in registry.log()] == [(a, True), (b, False)]
    assert champion_of(registry) == "openai:b"  # whoever asks next finishes the move
    assert all(m.finished for m in registry.log())


def test_a_crash_after_the_alias_moved_leaves_one_entry_not_two(registry, monkeypatch):
    a = version(registry, "a")
    with monkeypatch.context() as crashing:
        crashing.setattr(type(registry.client), "set_terminated", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(a, "first")
    registry.promote(a, "first")
    assert [(m.after, m.finished) for m in registry.log()] == [(a, True)]


def killed(*_args, **_kwargs):
    raise KeyboardInterrupt


def test_rollback_makes_the_predecessor_champion_and_again_the_one_before(registry):
    for model in ("a", "b", "c"):
        registry.promote(version(registry, model), model)
    registry.rollback("worse in production")
    assert champion_of(registry) == "openai:b"
    registry.rollback("that too")
    assert champion_of(registry) == "openai:a"
    with pytest.raises(BadInput, match="no predecessor"):
        registry.rollback("nothing left")
    assert [m.event for m in registry.log()] == ["promote"] * 3 + ["rollback"] * 2


def test_a_promoted_challenger_is_a_challenger_no_longer(registry):
    a = version(registry, "a")
    registry.challenge(a, "new data")
    assert registry.challenger().version == a
    registry.promote(a, "not worse")
    assert registry.challenger() is None


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
    assert champions([move(*each) for each in moves], now) == line


def test_how_a_version_started_is_noted_at_its_move_and_moves_nothing(registry):
    a, b = version(registry, "a"), version(registry, "b")
    registry.promote(a, "first")
    registry.promote(b, "better")
    assert registry.aliases() == {"champion": b, "predecessor": a}
    registry.note_start(b, f"did not start (the key sk-abcdefghijklmnop was refused); champion {a} goes on serving")
    tags = [registry.client.get_run(move.run_id).data.tags for move in registry.log()]
    assert STARTED not in tags[0] and tags[1][STARTED].startswith("did not start")
    assert registry.client.get_model_version(registry.use_case, b).tags[STARTED] == tags[1][STARTED]
    assert "sk-" not in tags[1][STARTED]
    assert registry.aliases()["champion"] == b and [move.after for move in registry.log()] == [a, b]
    assert registry.predecessor() == a
    assert registry.rollback("it did not start").after == a
    assert registry.predecessor() == ""


def test_people_are_shown_what_a_rollback_goes_back_to_and_what_a_version_was_judged(registry):
    a, b = version(registry, "a"), version(registry, "b")
    registry.promote(a, "first")
    assert registry.aliases() == {"champion": a}
    registry.promote(b, "better")
    assert registry.aliases() == {"champion": b, "predecessor": a}
    registry.challenge(a, "asked again")
    registry.rollback("worse")
    assert registry.aliases() == {"champion": a, "challenger": a}
    run = new_run(registry)
    run.log_candidate(Candidate(stage="prompt", model="openai:c", venue="api"), load("alert-triage"))
    run.write(tags={"mlflow.runName": "1 prompt · PASS quality 0.8", "leastwise.reason": "surely good enough"})
    c = registry.register(run.again())
    said = registry.client.get_model_version(registry.use_case, c).description
    assert said == "1 prompt · PASS quality 0.8: surely good enough"


def test_a_kill_before_the_predecessor_is_shown_is_made_good_and_a_deleted_one_is_not_shown(registry, monkeypatch):
    a, b = version(registry, "a"), version(registry, "b")
    registry.promote(a, "first")
    with monkeypatch.context() as crashing:
        crashing.setattr(type(registry), "_show_predecessor", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(b, "better")
    assert registry.aliases() == {"champion": b}
    registry.finish_interrupted()
    assert registry.aliases() == {"champion": b, "predecessor": a}
    registry.client.delete_model_version(registry.use_case, a)
    registry.promote(version(registry, "c"), "better still")
    registry.client.delete_model_version(registry.use_case, b)
    registry.promote(version(registry, "d"), "best")
    assert set(registry.aliases()) == {"champion", "predecessor"}


def test_aliases_are_read_without_finishing_what_a_crash_left_open(registry, monkeypatch):
    assert registry.aliases() == {}
    a, b = version(registry, "a"), version(registry, "b")
    registry.promote(a, "first")
    with monkeypatch.context() as crashing:
        crashing.setattr(type(registry.client), "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(b, "better")
    assert registry.aliases() == {"champion": a}
    assert [move.finished for move in registry.log()] == [True, False]


def test_who_has_a_champion_is_told_by_name(registry: Registry) -> None:
    from leastwise.record.client import tracking_uri

    assert registry.use_case not in champions_at(tracking_uri())
    registry.promote(version(registry, "a"), "first")
    assert registry.use_case in champions_at(tracking_uri())


def test_an_entry_that_somebody_deleted_gives_its_number_to_no_other(registry):
    moves = [registry.promote(version(registry, model), model) for model in "abc"]
    registry.client.delete_run(moves[0].run_id)
    registry.promote(version(registry, "d"), "d")
    assert [move.number for move in registry.log()] == [2, 3, 4]
    assert registry.rollback("back").after == moves[2].after


def test_who_reads_the_champion_never_moves_an_alias_back_past_a_later_promotion(registry, monkeypatch):
    a, b, c = version(registry, "a"), version(registry, "b"), version(registry, "c")
    registry.promote(a, "first")
    client_type, later = type(registry.client), threading.Thread(target=lambda: registry.promote(c, "better still"))
    with monkeypatch.context() as crashing:
        crashing.setattr(client_type, "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.promote(b, "better")
    move, reader = client_type.set_registered_model_alias, threading.get_ident()

    def slowly(*arguments):
        if threading.get_ident() == reader and later.ident is None:
            later.start()  # between the log as it was read and the alias
            later.join(1.0)
        return move(*arguments)

    monkeypatch.setattr(client_type, "set_registered_model_alias", slowly)
    registry.champion()
    later.join()
    assert registry.aliases() == {"champion": c, "predecessor": b}
