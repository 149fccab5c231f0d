"""The stages of the ladder by name, cheapest first. Which one comes next is decided in `leastwise.ladder`."""

from typing import Literal

Stage = Literal["prompt", "rag", "cache", "fine_tune", "pretrain", "distill", "self_host"]
LADDER: tuple[Stage, ...] = ("prompt", "rag", "cache", "fine_tune", "pretrain", "distill", "self_host")
