"""What the run form may change of a saved use case.

It reads nothing and checks no field (see `leastwise.rows.use_case_file`).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from leastwise.errors import BadInput
from leastwise.part import Part
from leastwise.use_case import Approval, Stage


class Overrides(Part):
    """What the run form may change of a saved use case. Everything left empty stays as it is in the file."""

    quality_bound: float | None = Field(None, gt=0, le=1, description="Quality wanted, a share in 0..1.")
    adherence_bound: float | None = Field(None, gt=0, le=1, description="Share of outputs in the demanded format.")
    p95_latency_ms_bound: float | None = Field(None, gt=0, description="95th percentile of latency, milliseconds.")
    usd_per_1k_requests_bound: float | None = Field(None, gt=0, description="All-in dollars for 1,000 requests.")
    budget_usd: float | None = Field(None, ge=0, description="Hard cap on what this climb spends, dollars.")
    budget_usd_per_month: float | None = Field(None, ge=0, description="Hard cap on all flows of a month, dollars.")
    last_stage: Stage | None = Field(None, description="The last stage this climb may reach.")
    approve_pretrain: Approval | None = Field(None, description="Leave for continued pre-training.")
    approve_self_host: Approval | None = Field(None, description="Leave for self-hosting.")

    def applied_to(self, raw: Mapping[str, object]) -> dict[str, object]:
        """The use case's fields with these changes; BadInput for a bound of a requirement it does not have."""
        changed = dict(raw)
        requirements = _mapping(raw, "requirements")
        bounds = {
            "quality": self.quality_bound,
            "adherence": self.adherence_bound,
            "p95_latency_ms": self.p95_latency_ms_bound,
            "usd_per_1k_requests": self.usd_per_1k_requests_bound,
        }
        for name, bound in bounds.items():
            if bound is None:
                continue
            if name not in requirements:
                raise BadInput(f"overrides.{name}_bound: the use case has no requirement {name}; add it to the file")
            requirements[name] = _mapping(requirements, name) | {"bound": bound}
        changed["requirements"] = requirements
        limits = {
            "budget_usd": self.budget_usd,
            "budget_usd_per_month": self.budget_usd_per_month,
            "last_stage": self.last_stage,
        }
        changed |= {name: value for name, value in limits.items() if value is not None}
        leave = {"pretrain": self.approve_pretrain, "self_host": self.approve_self_host}
        changed["approvals"] = _mapping(raw, "approvals") | {k: v for k, v in leave.items() if v is not None}
        return changed


def _mapping(raw: Mapping[str, object], name: str) -> dict[str, object]:
    value = raw.get(name) or {}
    if not isinstance(value, Mapping):
        raise BadInput(f"{name}: is no mapping of fields (given: {value!r}); correct it in the use case's file")
    return dict(value)
