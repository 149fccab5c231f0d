"""A climb whose `fine_tune` is trained at a host: advised with its price, refused where the host may not have the rows
or trains no more, won by what it trained, and bought once.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flows.customize import customize
from leastwise.errors import BadInput
from leastwise.ladder.needs import ruled_out
from leastwise.money.model_book import ModelBook
from leastwise.record.client import connect
from leastwise.record.climb_run import ClimbRun
from leastwise.rows.use_case_file import load
from tasks.advise import give_advice
from tasks.climb import open_climb
from tasks.session import workspace
from tasks.session.checks import notes, stated
from tasks.session.trainers import check_host
from tasks.session.workspace import prospect_of
from tests.servers.tuning_server import ACCOUNT, BASE, KEY, TuningServer, tuning_server
from tests.training.test_hosted_training import PRICE, case, tables
from tests.workspaces import case_file


@pytest.fixture
def host() -> Iterator[TuningServer]:
    with tuning_server() as server:
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("TUNING_KEY", KEY)
    monkeypatch.delenv("LEASTWISE_POOLS", raising=False)


def written(folder: Path, host: TuningServer, managed: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A case that may come to train: the base itself is prompted first, and knows nothing."""
    asked = {"base_url": host.base_url, "key_variable": "TUNING_KEY", "price": PRICE}
    prompted = {"uri": "openai:small-open", "served_name": BASE.removeprefix("fireworks:"), **asked}
    found = case(folder, host, managed, models={"candidates": [prompted]}, **more)
    return found | {"data": tables(folder, train=1000)}


def test_a_climb_ends_at_what_a_host_trained_and_run_again_pays_for_nothing(tmp_path: Path, host: TuningServer) -> None:
    file = case_file(tmp_path, written(tmp_path, host))
    ended = customize(file)
    assert ended.outcome == "fine_tune" and ended.sure and ended.usd_spent > 0
    run = ClimbRun.read(connect(), ended.mlflow_run_id)
    winner = run.latest("fine_tune").candidate()
    assert winner.venue == "managed" and winner.model.startswith(f"fireworks:accounts/{ACCOUNT}/models/lw-")
    assert BASE in str(run.tag("leastwise.trained_at")) and winner.model.rpartition("/")[2] in str(
        run.tag("leastwise.trained_at")
    )
    figures = run.latest("fine_tune").figures
    assert 0 < figures["usd.spent"] <= figures["usd.estimated.worst"] and figures["usd.estimated"] > 0
    assert "certificate.json" in {each.path for each in run.client.list_artifacts(run.id)}
    asked, jobs = len(host.asked), len(host.jobs)
    again = customize(file)
    assert (again.outcome, again.usd_spent, again.calls_paid) == ("fine_tune", 0.0, 0)
    assert (len(host.asked), len(host.jobs), host.uploads) == (asked, jobs, 1)


def test_advice_names_the_host_and_its_price_with_source_and_day(
    tmp_path: Path, host: TuningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    give_advice.fn(case_file(tmp_path, written(tmp_path, host)))
    said = capsys.readouterr().err
    assert "who trains: 127.0.0.1: fireworks:accounts/fireworks/models/small-open" in said
    assert "$3 a million tokens (the stand-in, 2026-11-27); its rows go there" in said
    assert "nobody wrote down that fireworks:accounts/fireworks/models/small-open can be tuned" in said
    assert not host.requests, "advice asks nobody"


def test_a_base_that_is_tuned_no_more_is_refused_by_advice_and_before_the_climb(
    tmp_path: Path, host: TuningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"uri": BASE, "basis": "announced", "source": "its page", "checked": "2026-11-27", "may_be_tuned": False}
    monkeypatch.setattr(workspace, "model_book", lambda _: ModelBook.model_validate({"models": [entry]}))
    file = case_file(tmp_path, written(tmp_path, host))
    for refuses in (give_advice.fn, open_climb.fn):
        with pytest.raises(BadInput, match=r"training\.managed\.base: .*is tuned by nobody \(its page"):
            refuses(file)
    assert not host.requests


def test_a_base_of_which_it_is_written_that_it_is_tuned_is_not_warned_of(
    tmp_path: Path, host: TuningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"uri": BASE, "basis": "announced", "source": "its page", "checked": "2026-11-27", "may_be_tuned": True}
    monkeypatch.setattr(workspace, "model_book", lambda _: ModelBook.model_validate({"models": [entry]}))
    prospect = prospect_of(load(case_file(tmp_path, written(tmp_path, host))))
    assert notes(prospect) == () and prospect.catalogue.check_tunable(date(2026, 11, 27)) is None


@pytest.mark.parametrize("limits", [{"venues": ["api"]}, {"venues": ["api", "managed"], "hosts": ["127.0.0.1"]}])
def test_where_residency_keeps_rows_from_the_host_the_stage_is_ruled_out(
    tmp_path: Path, host: TuningServer, limits: dict[str, Any]
) -> None:
    base = {"uri": BASE, "venue": "managed", "price": PRICE}
    requirements = {"quality": {"bound": 0.8, "margin": 0.3}, "residency": limits}
    use_case = load(case_file(tmp_path, written(tmp_path, host, {"base": base}, requirements=requirements)))
    assert "where residency does not allow it, nor its training rows" in str(ruled_out(use_case, "fine_tune"))


def test_what_a_host_trains_has_no_weights_here_to_be_examined(tmp_path: Path, host: TuningServer) -> None:
    prospect = prospect_of(load(case_file(tmp_path, written(tmp_path, host))))
    bounds = prospect.question.use_case.requirements.model_copy(
        update={"general_ability": prospect.question.use_case.requirements.quality}
    )
    prospect.question.__dict__["use_case"] = prospect.question.use_case.model_copy(update={"requirements": bounds})
    with pytest.raises(BadInput, match="weights stay there"):
        check_host(prospect)


def test_a_price_that_nobody_wrote_down_is_asked_for_before_anything(tmp_path: Path, host: TuningServer) -> None:
    file = case_file(tmp_path, written(tmp_path, host, {"price": None}))
    for refuses in (give_advice.fn, open_climb.fn):
        with pytest.raises(BadInput, match=r"training\.managed\.price: no price for training fireworks:"):
            refuses(file)


def test_a_key_that_is_not_there_is_asked_for_before_anything(
    tmp_path: Path, host: TuningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = written(tmp_path, host)
    found["training"]["managed"]["base"]["key_variable"] = "A_KEY_OF_ITS_OWN"
    with pytest.raises(BadInput, match="set A_KEY_OF_ITS_OWN in the environment"):
        open_climb.fn(case_file(tmp_path, found))


@pytest.mark.parametrize(
    ("pools", "gpu", "when", "has_base", "at_host"),
    [
        ("", False, "no_gpu", True, True),
        ("1", False, "no_gpu", True, False),
        ("", True, "no_gpu", True, False),
        ("1", True, "no_gpu", False, True),
        ("1", True, "always", True, True),
    ],
)
def test_a_host_trains_where_no_gpu_is_at_hand(
    tmp_path: Path,
    host: TuningServer,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
    pools: str,
    gpu: bool,
    when: str,
    has_base: bool,
    at_host: bool,
) -> None:
    monkeypatch.setenv("LEASTWISE_POOLS", pools)
    monkeypatch.setattr("leastwise.rows.use_case_file.GPU_DEVICES", (str(tmp_path),) if gpu else ("/none",))
    found = written(tmp_path, host, {"when": when})
    if has_base:
        found["models"] = found["models"] | {"base": {"uri": tiny.as_uri(), "venue": "managed", "price": PRICE}}
    use_case = load(case_file(tmp_path, found))
    assert (use_case.training.managed is not None) == at_host


def test_a_host_asks_for_no_dev_rows_no_weights_and_no_machine(tmp_path: Path, host: TuningServer) -> None:
    found = written(tmp_path, host)
    del found["data"]["dev"]
    prospect = prospect_of(load(case_file(tmp_path, found)))
    for check in stated(prospect):
        check()


def test_what_says_nothing_of_the_training_is_no_other_question(tmp_path: Path, host: TuningServer) -> None:
    def key(**managed: Any) -> str:
        return prospect_of(load(case_file(tmp_path, written(tmp_path, host, managed)))).question.key

    price = {"usd_per_million_tokens": 9.0, "source": "another page", "as_of": "2026-11-01"}
    assert len({key(), key(wait_hours=1), key(poll_seconds=1), key(when="always"), key(price=price)}) == 1
    assert len({key(), key(rank=8), key(learning_rate=1e-4)}) == 3
