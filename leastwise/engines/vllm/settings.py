"""What this machine says of its vLLM, in environment variables: which executable, for which hardware, in which format.

It looks at no hardware and starts nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from leastwise.errors import BadInput
from leastwise.part import Part

NumberFormat = Literal["auto", "bfloat16", "float16", "float32"]
VARIABLES = {
    "executable": "LEASTWISE_VLLM",
    "device": "LEASTWISE_VLLM_DEVICE",
    "dtype": "LEASTWISE_VLLM_DTYPE",
    "memory_share": "LEASTWISE_VLLM_MEMORY_SHARE",
    "cache_gb": "LEASTWISE_VLLM_CACHE_GB",
    "start_s": "LEASTWISE_VLLM_START_S",
}


class VllmSettings(Part):
    """The vLLM of this machine. Its number format is part of what a verdict is about, so a change of it is another
    engine's answers.
    """

    executable: Path = Field(description="The command `vllm` of an environment of its own, or one that runs an image.")
    device: Literal["gpu", "cpu"] = Field("gpu", description="What that build runs on; gpu: used where there is one.")
    dtype: NumberFormat = Field(
        "auto", description="Number format of the weights; auto: their own (a GPU without bfloat16 needs float16)."
    )
    memory_share: float = Field(0.85, ge=0.05, le=0.98, description="Share of a GPU's memory that it may take.")
    cache_gb: int = Field(1, ge=1, le=1024, description="Gigabytes of the token cache of a CPU build.")
    start_s: float = Field(600.0, ge=10, le=7200, description="Seconds in which it must be ready.")

    @property
    def computes_as(self) -> str:
        """What its answers are kept under."""
        return f"vllm {self.device} {self.dtype}"


def named() -> VllmSettings | None:
    """As the environment says; None where it names no vLLM. BadInput with the variable that is wrong."""
    said = {field: os.environ[variable] for field, variable in VARIABLES.items() if os.environ.get(variable)}
    if "executable" not in said:
        return None
    try:
        settings = VllmSettings.model_validate(said)
    except ValidationError as error:
        wrong = [f"{VARIABLES[str(each['loc'][0])]}: {each['input']!r}: {each['msg']}" for each in error.errors()]
        raise BadInput(f"{'; '.join(wrong)}; correct or unset it") from None
    if not os.access(settings.executable, os.X_OK) or not settings.executable.is_file():
        raise BadInput(
            f"{VARIABLES['executable']}: {settings.executable} is no command that can be run; give the path of `vllm` "
            "in the environment it is installed in, or unset it"
        )
    return settings
