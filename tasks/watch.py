"""Keeps watching a champion: has the traffic drifted, and would a cheaper level do by now?

It changes nothing: drift alarms, a rebaseline recommends. Drift is looked for in embeddings only (no labels, no
repetition), one window at a time: of windows in which nothing changed a share of alpha alarms. A rebaseline asks the
stages that train nothing (prompt, rag); whether a distilled student would do is not asked yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prefect import task

from leastwise import ladder
from leastwise.answering.workspace import Workspace
from leastwise.content import content_key
from leastwise.errors import BadInput
from leastwise.evidence import drift
from leastwise.models.encoder import embed, embedder_dir
from leastwise.record import registry, tracking, upkeep
from leastwise.record.upkeep import Upkeep
from leastwise.rows import row_checks
from leastwise.rows.tables import Tables
from leastwise.rows.use_case_file import load
from leastwise.stores import storage, table_files
from leastwise.use_case import LADDER, Stage, UseCase
from tasks import console

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 400
UNTRAINED: tuple[Stage, ...] = ("prompt", "rag")


@task(name="drift")
def watch(use_case: str, window: str) -> Upkeep:
    """Compare a window of recent inputs with the rows the champion was judged on (dev and gate): quiet, or drift."""
    wanted, client = load(use_case), tracking.connect()
    encoder = _encoder(wanted)
    recent, known = read_window(wanted, window), _reference(Tables(wanted))
    unit, seed = _unit(wanted, recent, known), _seed(recent)
    sampled = [independent(rows, unit, _seed(rows)) for rows in (known, recent)]
    _check_size(sampled[1], window, unit)
    vectors = [embed(list(rows["text"]), encoder, cache=storage.home() / "embeddings") for rows in sampled]
    found = drift.drift_test(vectors[0], vectors[1], alpha=wanted.alpha, seed=seed)
    run_id = upkeep.open_run(
        client, wanted, "drift", content_key(window, str(seed)), {"leastwise.window": window[:500]}
    )
    figures = {
        "drift.p_mmd": found.p_mmd,
        "drift.p_domain": found.p_domain,
        "drift.mmd": found.mmd,
        "drift.auc": found.auc,
        "drift.alpha": wanted.alpha,
        "drift.rows.reference": float(len(sampled[0])),
        "drift.rows.window": float(len(sampled[1])),
    }
    counted = f"one row of each {unit}" if unit else "rows taken as independent"
    reason = f"{found.reason}; {len(sampled[1])} of {len(recent)} window rows, {counted}"
    return upkeep.close_run(client, run_id, "drift" if found.drifted else "quiet", reason, figures)


def read_window(use_case: UseCase, uri: str) -> pd.DataFrame:
    """Recent inputs: a table with the use case's text column; BadInput for missing or empty text."""
    rows = table_files.read_table(uri).rename(columns={use_case.data.text_column: "text"})
    row_checks.check_rows(rows, f"window ({uri})", label=None, id=None)
    return rows


def independent(rows: pd.DataFrame, unit: str | None, seed: int, most: int = MOST_ROWS) -> pd.DataFrame:
    """At most `most` distinct texts in seeded order, one of each unit: sentences of one source are near-copies, and a
    window from other sources would alarm though nothing changed. A row without a unit is a unit of its own.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = rows.iloc[order].drop_duplicates("text")
    if unit:
        shuffled = shuffled[shuffled[unit].isna() | ~shuffled[unit].duplicated()]
    return shuffled.head(most)


def _seed(rows: pd.DataFrame) -> int:
    """From the content of each sample alone, so that every window meets the same reference rows, embedded once."""
    return int(hashlib.sha256("\n".join(rows["text"]).encode()).hexdigest()[:8], 16)


def _check_size(rows: pd.DataFrame, window: str, unit: str | None) -> None:
    if len(rows) < drift.LEAST_ROWS:
        of = f", one of each {unit}" if unit else ""
        raise BadInput(
            f"window ({window}): {len(rows)} distinct texts{of}, at least {drift.LEAST_ROWS} are needed; take a longer window"
        )


def _unit(use_case: UseCase, *samples: pd.DataFrame) -> str | None:
    column = use_case.data.unit_by or use_case.data.split_by
    return column if column and all(column in rows for rows in samples) else None


def _reference(tables: Tables) -> pd.DataFrame:
    import pandas as pd

    dev = tables.get("dev")
    return pd.concat([*([] if dev is None else [dev]), tables.need("gate")], ignore_index=True)


def _encoder(use_case: UseCase) -> Path:
    if not use_case.models.embedder:
        raise BadInput(f"models.embedder: is not set in {use_case.name}; drift is looked for in embeddings, name one")
    return embedder_dir(use_case.models.embedder)


@task(name="open rebaseline")
def open_rebaseline(use_case: str) -> str:
    """Check the use case as it is now and open the run its cheaper stages are measured under."""
    wanted, client = load(use_case), tracking.connect()
    champion = registry.champion(client, wanted.name)
    if champion is None:
        raise BadInput(
            f"{wanted.name}: has no champion to step down from; promote a run first (python -m flows.promote)"
        )
    tables = Tables(wanted)
    tables.check()
    work = Workspace.before_climb(client, wanted, tables)
    work.check()
    tags = {"leastwise.champion": champion.version, "leastwise.stage": champion.candidate.stage}
    return upkeep.open_run(client, wanted, "rebaseline", content_key(work.question, champion.version), tags)


def stages_below(run_id: str) -> list[Stage]:
    """The untrained stages below the champion's, cheapest first."""
    work = Workspace.of(run_id)
    stage = work.client.get_run(run_id).data.tags["leastwise.stage"]
    below = LADDER[: LADDER.index(stage)]  # type: ignore[arg-type]
    return [each for each in UNTRAINED if each in below and ladder.could_run(work.use_case, each, [])]


def suffices(stage_run_id: str) -> bool:
    """Whether a stage surely passed or could not be measured: either way there is nothing more to ask."""
    verdict = tracking.connect().get_run(stage_run_id).data.tags.get("leastwise.verdict", "ERROR")
    return verdict in ("PASS", "ERROR")


@task(name="recommend")
def recommend(run_id: str, tried: Sequence[str], halted: str = "") -> Upkeep:
    """What the record of a rebaseline recommends: step_down or stay; nothing is changed."""
    work = Workspace.of(run_id)
    champion = work.client.get_run(run_id).data.tags["leastwise.stage"]
    if halted:
        return upkeep.close_run(work.client, run_id, "budget", halted)
    runs = [work.client.get_run(each) for each in tried]
    verdicts = {run.data.tags["leastwise.stage"]: run.data.tags.get("leastwise.verdict", "ERROR") for run in runs}
    reasons = "; ".join(str(run.info.run_name) for run in runs) or f"nothing untrained is below {champion}"
    if "ERROR" in verdicts.values():
        return upkeep.close_run(work.client, run_id, "error", reasons)
    enough = next((stage for stage, verdict in verdicts.items() if verdict == "PASS"), None)
    if enough is None:
        return upkeep.close_run(work.client, run_id, "stay", f"{champion} stays: {reasons}")
    winner = next(run for run in runs if run.data.tags["leastwise.stage"] == enough)
    console.show_note(f"to step down: python -m flows.promote {work.use_case.name} {winner.info.run_id}")
    why = (
        f"{enough} now suffices where {champion} is champion ({reasons}); promote run {winner.info.run_id} to step down"
    )
    return upkeep.close_run(work.client, run_id, "step_down", why)
