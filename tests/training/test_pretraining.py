"""Continued pre-training on a two-block Llama: what is learnt, what is mixed in, what is refused."""

import random

import pytest

from leastwise.errors import BadInput
from leastwise.models.causal_model import perplexity
from leastwise.training.pretraining import Replay, continue_pretraining
from leastwise.training.settings import TrainingSettings

SETTINGS = TrainingSettings(
    batch_size=4, max_examples=64, learning_rate=1e-2, upper_blocks_share=1.0, threads=1, max_tokens=32, rank=8
)
DOMAIN = "Adversaries may dump credentials to obtain account login material. "
GENERAL = "A loop with an else clause runs that clause when its items are used up. "


@pytest.mark.parametrize(("method", "rate"), [("lora", 1e-2), ("full", 2e-3)])
def test_it_lowers_perplexity_on_held_out_text_of_the_domain(tiny, tmp_path, method, rate):
    settings = SETTINGS.model_copy(update={"epochs": 20, "method": method, "learning_rate": rate})
    out = tmp_path / "base"
    report = continue_pretraining(tiny, [DOMAIN * 4] * 10, [DOMAIN], settings, out)
    assert report.perplexity_before == pytest.approx(perplexity(tiny, [DOMAIN], threads=1), rel=1e-3)
    assert report.perplexity_after < report.perplexity_before / 2
    assert report.perplexity_after == pytest.approx(perplexity(out, [DOMAIN], threads=1), rel=1e-3)
    assert (report.replayed, report.general_perplexity_before) == (0.0, None)
    assert continue_pretraining(tiny, [DOMAIN * 4] * 10, [DOMAIN], settings, out) == report


@pytest.mark.soak
def test_replayed_general_text_is_the_share_that_was_asked_for_and_is_not_forgotten_as_without(tiny, tmp_path):
    rng = random.Random(0)
    domain = [" ".join(rng.sample(DOMAIN.split() * 3, 24)) for _ in range(200)]
    after = {}
    for share in (0.0, 0.25):
        replay = Replay([GENERAL * 4] * 30, [GENERAL], share)
        report = continue_pretraining(tiny, domain, [DOMAIN], SETTINGS, tmp_path / f"base-{share}", None, replay)
        assert report.replayed == share and report.training.examples == 64
        after[share] = report.general_perplexity_after
        assert {"general_perplexity.after", "replayed_share"} < set(report.figures())
    assert after[0.25] < after[0.0] / 2


def test_replay_without_general_text_is_refused_before_any_training(tiny, tmp_path):
    with pytest.raises(BadInput, match=r"replay share 0\.1 of what"):
        continue_pretraining(tiny, [DOMAIN * 8] * 4, [DOMAIN], SETTINGS, tmp_path / "base", None, Replay((), (), 0.1))
    assert not list(tmp_path.iterdir())
