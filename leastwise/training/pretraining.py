"""Continues the pre-training of a causal model on a corpus (Level 4), with general text replayed against forgetting.

It trains with `leastwise.training.training`, chooses no settings and judges nothing: perplexities before and after are
reported. Replay: of the packed sequences a set share is general text, drawn and mixed by the seed. That a few percent
of old data hold back forgetting is known of far larger models (Ibrahim et al., "Simple and Scalable Strategies to
Continually Pre-train Large Language Models", 2024: 5% under a weak shift of domain, 25-50% under a strong one); what it
does here is measured.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from leastwise.errors import BadInput
from leastwise.models.causal_model import merge, perplexity
from leastwise.progress import TrainingProgress
from leastwise.stores import storage
from leastwise.training.request import TrainingReport, TrainingRequest
from leastwise.training.settings import TrainingSettings
from leastwise.training.training import run
from leastwise.training.training_rows import TokenRow, packed, training_order


@dataclass(frozen=True)
class Replay:
    """General text: what is mixed in, as a share of the packed sequences, and held texts that are only measured."""

    texts: Sequence[str] = ()
    held_out: Sequence[str] = ()
    share: float = 0.0


NO_REPLAY = Replay()


class PretrainReport(BaseModel):
    """Continued pre-training: perplexity on held-out texts before and after, and the training behind it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    perplexity_before: float
    perplexity_after: float
    general_perplexity_before: float | None = Field(None, description="On held general text; None where there is none.")
    general_perplexity_after: float | None = None
    replayed: float = Field(0.0, description="Share of the sequences trained on that was general text.")
    tokens: int = Field(description="Tokens trained on.")
    training: TrainingReport

    def figures(self) -> dict[str, float]:
        """What MLflow shows of it as metrics."""
        general = {
            "general_perplexity.before": self.general_perplexity_before,
            "general_perplexity.after": self.general_perplexity_after,
        }
        return {
            "perplexity.before": self.perplexity_before,
            "perplexity.after": self.perplexity_after,
            "replayed_share": self.replayed,
            "tokens": float(self.tokens),
            **{name: value for name, value in general.items() if value is not None},
        }

    def in_words(self) -> str:
        """Both perplexities in one line."""
        held_out = f"held-out perplexity {self.perplexity_before:.1f} → {self.perplexity_after:.1f}"
        before, after = self.general_perplexity_before, self.general_perplexity_after
        if before is None or after is None:
            return held_out
        return f"{held_out}; on general text {before:.1f} → {after:.1f} ({self.replayed:.0%} replayed)"


def continue_pretraining(
    base: Path,
    texts: Sequence[str],
    held_out: Sequence[str],
    settings: TrainingSettings,
    out: Path,
    progress: Callable[[TrainingProgress], None] | None = None,
    replay: Replay = NO_REPLAY,
) -> PretrainReport:
    """Continues pre-training on `texts`, packed to `max_tokens`, and leaves a merged model directory in `out`.

    `max_examples` counts packed sequences, replayed ones included. LoRA unless `method` is full. Where there are fewer
    general sequences than the share asks for, all of them are mixed in once; the report says what share it was.
    """
    report_path = out / "pretraining.json"
    if report_path.exists():
        return PretrainReport.model_validate_json(report_path.read_text(encoding="utf-8"))
    mix = _mixed(base, texts, settings, replay)
    encoded = [*mix.domain, *mix.general]
    work = out.with_name(f"{out.name}.adapter")
    training = run(TrainingRequest(base=base, encoded=encoded, watched=[], settings=settings), work, progress)
    if not out.exists():
        merge(base, work, out)
    order = training_order(encoded, settings)
    held_general = list(replay.held_out)
    report = PretrainReport(
        perplexity_before=perplexity(base, held_out, settings.threads),
        perplexity_after=perplexity(out, held_out, settings.threads),
        general_perplexity_before=perplexity(base, held_general, settings.threads) if held_general else None,
        general_perplexity_after=perplexity(out, held_general, settings.threads) if held_general else None,
        replayed=sum(at >= len(mix.domain) for at in order) / len(order),
        tokens=training.examples * settings.max_tokens,
        training=training,
    )
    storage.write_bytes(report_path, report.model_dump_json(indent=1).encode())
    return report


@dataclass(frozen=True)
class _Mix:
    domain: list[TokenRow]
    general: list[TokenRow]


def _mixed(base: Path, texts: Sequence[str], settings: TrainingSettings, replay: Replay) -> _Mix:
    """Packed sequences of the domain and those of general text beside them; `training_order` shuffles them together."""
    domain = packed(base, texts, settings.max_tokens)
    if not replay.share:
        return _Mix(domain, [])
    if not replay.texts:
        raise BadInput(f"replay share {replay.share:g} of what? give general texts, or set the share to 0")
    general = packed(base, replay.texts, settings.max_tokens)
    rng = random.Random(settings.seed)
    fitting = round((1 - replay.share) * settings.max_examples)  # so that a training that is cut short keeps the share
    domain = rng.sample(domain, min(len(domain), max(1, fitting)))
    replayed = round(len(domain) * replay.share / (1 - replay.share))
    return _Mix(domain, rng.sample(general, min(len(general), replayed)))
