"""What the run form may change of a saved use case. It reads nothing and checks no field (see `leastwise.rows.use_case_file`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from leastwise.errors import BadInput
from leastwise.use_case import Approval, Stage

if TYPE_CHECKING:
    pass


class Overrides(BaseModel):
    """What the run form may change of a saved use case. Everything left empty stays as it is in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality_bound: float | None = Field(None, gt=0, le=1, description="Quality wanted, a share in 0..1.")
    adherence_bound: float | None = Field(None, gt=0, le=1, description="Share of outputs in the demanded format.")
    p95_latency_ms_bound: float | None = Field(None, gt=0, description="95th percentile of latency, milliseconds.")
    usd_per_1k_requests_bound: float | None = Field(None, gt=0, description="All-in dollars for 1,000 requests.")
    budget_usd: float | None = Field(None, ge=0, description="Hard cap on what this climb spends, dollars.")
    budget_usd_per_month: float | None = Field(None, ge=0, description="Hard cap on all flows of a month, dollars.")
    last_stage: Stage | None = Field(None, description="The last stage this climb may reach.")
    approve_pretrain: Approval | None = Field(None, description="Leave for continued pre-training.")
    approve_self_host: Approval | None = Field(None, description="Leave for self-hosting.")

    def applied_to(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The use case's fields with these changes."""
        changed = dict(raw)
        requirements = {k: dict(v) for k, v in (raw.get("requirements") or {}).items() if isinstance(v, Mapping)}
        for name in ("quality", "adherence", "p95_latency_ms", "usd_per_1k_requests"):
            bound = getattr(self, f"{name}_bound")
            if bound is None:
                continue
            if name not in requirements:
                raise BadInput(f"overrides.{name}_bound: the use case has no requirement {name}; add it to the file")
            requirements[name]["bound"] = bound
        changed["requirements"] = requirements
        for name in ("budget_usd", "budget_usd_per_month", "last_stage"):
            if getattr(self, name) is not None:
                changed[name] = getattr(self, name)
        leave = {"pretrain": self.approve_pretrain, "self_host": self.approve_self_host}
        changed["approvals"] = (raw.get("approvals") or {}) | {k: v for k, v in leave.items() if v is not None}
        return changed
