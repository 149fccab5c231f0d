"""What a student is and how it is trained, as a tagged union: an encoder with a head, or a small causal model.

It trains nothing and does not say what the teacher labels (see `leastwise.use_case.Training`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from leastwise.part import Part, written_but_for
from leastwise.use_case.model import check_model_uri

READ_TOKENS = 64  # of a text by an encoder student


class EncoderStudent(Part):
    """The encoder `models.student` cut to its first layers, with a head over the labels. For classification only."""

    kind: Literal["encoder"] = Field("encoder", description="An encoder with a head over the labels.")
    layers: int = Field(2, ge=2, le=6, description="Layers kept of the encoder, counted from the input.")
    epochs: int = Field(3, ge=1, le=50, description="Passes over the teacher's labels.")
    learning_rate: float = Field(5e-4, gt=0, le=1e-2, description="Peak rate of the encoder; the head learns at 10x.")
    temperature: float = Field(
        2.0, gt=0, le=20, description="Softens teacher and student alike: above 1 second choices count more."
    )
    max_tokens: int = Field(
        READ_TOKENS, ge=8, le=512, description="Tokens it reads of a text; the rest is cut off, and how often is said."
    )

    @model_serializer(mode="wrap")
    def _default_length_is_not_written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """What was asked before more could be read is still the same question."""
        return written_but_for(write(self), max_tokens=READ_TOKENS)


class CausalStudent(Part):
    """A smaller causal model, for every kind of task.

    Trained on the teacher's answers word by word (sequence level), and on its probabilities too if that is asked for.
    """

    kind: Literal["causal"] = Field(description="A smaller causal model.")
    uri: str | None = Field(None, description="Open weights of the student; empty: those of models.base.")
    blocks: int | None = Field(
        None, ge=1, le=200, description="Blocks kept of these weights, counted from the input; empty: all."
    )
    method: Literal["lora", "full"] = Field(
        "lora", description="lora: an adapter on the kept blocks; full: all of them."
    )
    max_examples: int = Field(4800, ge=1, description="Teacher answers seen in all, every epoch counted.")
    learning_rate: float = Field(2e-3, gt=0, lt=1, description="Peak rate; 1e-3 to 2e-3 for lora, 1e-4 for full.")
    rank: int = Field(16, ge=1, le=512, description="Rank of the LoRA matrices.")
    teacher_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the loss that is the divergence from the teacher's probabilities of every token (logit "
        "distillation), the rest its answers; needs trained weights as the teacher, with the student's tokenizer. "
        "0: answers alone.",
    )
    temperature: float = Field(
        1.0, gt=0, le=20, description="Softens both in that divergence: above 1 second choices count more."
    )

    @model_validator(mode="after")
    def _uri_names_open_weights(self) -> Self:
        if self.uri is not None:
            check_model_uri(self.uri)
            if "://" not in self.uri:
                raise ValueError(
                    f"uri: {self.uri} is not open weights; name hf://, s3://, file:// or package://, or leave it empty"
                )
        return self


def _kind(value: object) -> str:
    """The tag of a student as written in YAML or as built; `encoder` where none is said."""
    if isinstance(value, dict):
        return str(value.get("kind", "encoder"))
    return value.kind if isinstance(value, EncoderStudent | CausalStudent) else "encoder"


Student = Annotated[
    Annotated[EncoderStudent, Tag("encoder")] | Annotated[CausalStudent, Tag("causal")],
    Discriminator(
        _kind,
        custom_error_type="unknown_kind",
        custom_error_message="kind: is neither encoder nor causal; write one of them",
    ),
]
