"""How much is asked of a system, on which cost and latency depend. It says nothing of what a request holds."""

from __future__ import annotations

from pydantic import Field

from leastwise.part import Part


class Traffic(Part):
    """How much is asked, on which cost and latency depend."""

    requests_per_month: int = Field(gt=0, description="Requests a month.")
    peak_requests_per_s: float = Field(1.0, gt=0, description="Requests a second in the busiest hour.")
    concurrency: int = Field(2, ge=1, le=512, description="Requests in flight at once; latency is measured at it.")
    output_tokens: int = Field(12, ge=1, le=8192, description="Most tokens one answer may have.")
    retry_share: float = Field(0.0, ge=0, le=1, description="Share of requests that have to be sent twice.")
