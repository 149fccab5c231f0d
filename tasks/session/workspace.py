"""Opening: from the id of a run in MLflow, or from a use case before there is one, to the parts a task works with.

Only the functions that flows call open anything; everything else is handed what it uses. Nothing opened is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import yaml

from leastwise.answering.asked import asked_of
from leastwise.answering.workspace import Workspace
from leastwise.endpoints.clients.deprecations import announced_retirements, source_of_announced
from leastwise.endpoints.habits import with_known_reasoning
from leastwise.ladder.alphas import first_alphas
from leastwise.ladder.needs import Situation
from leastwise.models.catalogue import Catalogue
from leastwise.money import PriceBook
from leastwise.money.model_book import ModelBook
from leastwise.money.price_book import priced
from leastwise.record.alpha_account import AlphaAccount
from leastwise.record.client import AWAY_S, connect
from leastwise.record.climb_run import ClimbRun
from leastwise.record.costing import Costing
from leastwise.rows.question import Question
from leastwise.rows.tables import Tables
from leastwise.run_id import RunId
from leastwise.stores import storage
from leastwise.stores.budget import Budget
from leastwise.stores.shared.state import open_state
from leastwise.stores.shipped import MODEL_BOOK, PRICE_BOOK
from leastwise.use_case import Stage, UseCase
from tasks.session.console import Console

if TYPE_CHECKING:
    from leastwise.ladder.needs import StageAnswer


@dataclass(frozen=True)
class Prospect:
    """A use case before any run of it is open: what is asked, of which models, at what cost."""

    question: Question
    catalogue: Catalogue

    @cached_property
    def costing(self) -> Costing:
        """What its stages are expected to cost, as the first question asked of its gate set."""
        question = self.question
        return Costing(question, self.catalogue, lambda: asked_of(question), lambda: first_alphas(question.use_case))


def price_book() -> PriceBook:
    """The dated price book that ships with Leastwise."""
    return _book_of(PRICE_BOOK.read_text())


@lru_cache(maxsize=4)
def _book_of(written: str) -> PriceBook:
    return PriceBook.model_validate(yaml.safe_load(written))


def model_book(use_case: UseCase) -> ModelBook:
    """The dated model book that ships with Leastwise, and what an installed SDK announces of models that the use case
    names.
    """
    judge = use_case.judge
    return dated_models([model.uri for model in (*use_case.models.candidates, *(judge.models if judge else ()))])


def dated_models(named: Sequence[str]) -> ModelBook:
    """The same for models named by URI; of a provider's SDK only what is installed for one of them is read."""
    book = _models_of(MODEL_BOOK.read_text())
    return book.with_announced(announced_retirements(named), source_of_announced())


@lru_cache(maxsize=4)
def _models_of(written: str) -> ModelBook:
    return ModelBook.model_validate(yaml.safe_load(written))


def prospect_of(use_case: UseCase) -> Prospect:
    """The parts of a use case that need no run."""
    book = price_book()
    known = with_known_reasoning(priced(use_case, book))
    question = Question(known, Tables(use_case))
    return Prospect(question, Catalogue(known, book, storage.home(), model_book(known)))


def open_workspace(run_id: RunId) -> Workspace:
    """The parts of an open climb, or of an upkeep run that measures, from its id, in any process that reaches
    MLflow.
    """
    client = connect(AWAY_S)  # it was there: it is started again, or a cable is pulled
    run = ClimbRun.read(client, run_id)
    prospect, home = prospect_of(run.use_case()), storage.home()
    state = open_state(home)
    return Workspace(
        question=prospect.question,
        catalogue=prospect.catalogue,
        budget=Budget(state.ledger, run_id, prospect.question.use_case),
        run=run,
        account=AlphaAccount(client),
        answers=state.answers,
        home=home,
        display=Console(),
    )


def situation_of(work: Workspace, answers: dict[Stage, StageAnswer] | None = None, can_ask: bool = False) -> Situation:
    """What the ladder must know beside use case and history."""
    tables, budget = work.tables, work.budget
    return Situation(
        train_rows=tables.rows("train"),
        document_rows=tables.rows("documents"),
        unlabelled_rows=tables.rows("unlabelled"),
        repeat_share=work.question.repeat_share,
        estimates=work.costing.worst,
        usd_spent=budget.usd_spent,
        usd_spent_this_month=budget.usd_spent_this_month,
        answers=answers or {},
        can_ask=can_ask,
    )
