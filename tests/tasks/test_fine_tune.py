"""Which stage pays for a training: the one that made the base it is on; a retraining is fine-tuning whatever
its base.
"""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from leastwise.ladder.candidate import Candidate, Weights
from leastwise.models.causal_model import PROOF, loaded, proof_inputs
from leastwise.record.registry import Registry
from leastwise.record.run import CHAMPION_VERSION
from leastwise.record.stage_run import StageRun
from leastwise.record.upkeep_run import open_upkeep
from tasks.fine_tune import fine_tune_adapter, retrain_adapter
from tasks.retrain import train_again
from tasks.session.workspace import open_workspace
from tests.cities import LABELS, open_cities

SHORT = {"max_examples": 8, "batch_size": 4, "usd_per_hour": 1.0}


@pytest.mark.parametrize(
    ("train", "is_on_another_base", "pays"),
    [
        (fine_tune_adapter.fn, False, "fine_tune"),
        (fine_tune_adapter.fn, True, "pretrain"),
        (retrain_adapter, False, "fine_tune"),
        (retrain_adapter, True, "fine_tune"),
    ],
    ids=["fine_tune", "fine_tune on a further base", "retrain", "retrain on a further base"],
)
def test_a_training_is_booked_to_the_stage_it_belongs_to(
    tmp_path: Path, home: Path, tiny: Path, train, is_on_another_base: bool, pays: str
) -> None:
    work = open_cities(tmp_path, tiny, LABELS, {}, **SHORT)
    further = shutil.copytree(tiny, tmp_path / "further")
    train(work.run.id, further.as_uri() if is_on_another_base else None)
    spent = {stage: work.budget.spent_by(stage) for stage in ("fine_tune", "pretrain")}
    assert spent[pays] > 0 and sum(spent.values()) == spent[pays] == work.budget.usd_spent


def test_a_champion_on_a_further_pretrained_base_is_trained_again_on_it_and_that_is_booked_as_fine_tuning(
    tmp_path: Path, home: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "leastwise.training.hosted.here.prove_servable", lambda *_: None
    )  # a conversion, which has its own tests
    work = open_cities(tmp_path, tiny, LABELS, {}, **SHORT)
    further, registry = _further_trained(tiny, tmp_path / "further"), Registry(work.run.client, work.use_case.name)
    old = StageRun.read(work.run.client, work.run.open_stage("pretrain", "old").id)
    weights = Weights(kind="adapter", uri="file:///old", revision="r")
    candidate = Candidate(stage="pretrain", model=further.as_uri(), venue="managed", weights=weights)
    old.log_candidate(candidate, work.use_case)
    version = registry.register(old.again())
    registry.promote(version, "first")
    run = open_upkeep(work.run.client, work.use_case, "retrain", "key", {CHAMPION_VERSION: version})
    trained = train_again(run.id)
    adapter = work.handover.weights_dir(trained)
    assert _off_by(further, adapter) < 0.01 < 0.1 < _off_by(tiny, adapter)
    budget = open_workspace(run.id).budget
    assert budget.spent_by("fine_tune") > 0 and budget.spent_by("pretrain") == 0


def _further_trained(base: Path, to: Path) -> Path:
    """A copy of the model whose output matrix has the other sign."""
    model = loaded(base)
    with torch.no_grad():
        model.get_output_embeddings().weight.neg_()
    shutil.copytree(base, to)
    model.save_pretrained(to)
    return to


def _off_by(base: Path, adapter: Path) -> float:
    """How far the logits of the adapter on this base are from those its training kept."""
    kept = load_file(adapter / PROOF)
    model = loaded(base, adapter, attention="eager")
    with torch.inference_mode():
        logits = model(**proof_inputs(kept, model.device)).logits[:, -1]
    return float((logits - kept["logits"]).abs().max())
