"""What the namespace's NetworkPolicies let the pods of a use case with listed hosts do: go out or not.

A policy only ever adds a way, so none that is applied with a candidate could take one away: pods say by a label that
they are held to a list, the policies that open the way out leave such pods out, and it is looked whether they do. It
writes no policy; whoever may start a flow run would open ways with that right.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping

from leastwise.serving.cluster.kubernetes import Kubernetes, Object
from leastwise.serving.cluster.manifests import RESIDENCY

WIDEST = {4: 16, 6: 48}  # bits of an address: a wider block is no list of addresses


def ways_out(api: Kubernetes, labels: Mapping[str, str]) -> str:
    """Why pods with these labels are not held to listed addresses; empty where they are. Refused where that cannot be
    read.
    """
    policies = [each["spec"] for each in api.labelled("NetworkPolicy", {}) if _is_of_egress(each["spec"])]
    held = [each for each in policies if selects(each.get("podSelector") or {}, labels)]
    if not held:
        return (
            f"no NetworkPolicy of namespace {api.namespace} holds its pods back; apply infra/kubernetes there, whose "
            "policy `closed` does"
        )
    open_to = next((way for each in held for way in _open(each)), "")
    if open_to:
        return (
            f"a NetworkPolicy of namespace {api.namespace} lets its pods out to {open_to}; leave pods with the label "
            f"{RESIDENCY} out of it, as infra/kubernetes/components/providers does"
        )
    return ""


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes pods with these labels; an empty one takes all."""
    wanted = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(
        _holds(each, labels) for each in selector.get("matchExpressions") or ()
    )


def _holds(asked: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(asked["key"]), asked.get("values") or ()
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[asked["operator"]]


def _is_of_egress(policy: Object) -> bool:
    return "Egress" in (policy.get("policyTypes") or (["Egress"] if policy.get("egress") else []))


def _open(policy: Object) -> Iterator[str]:
    for rule in policy.get("egress") or ():
        if not rule.get("to"):
            yield "everywhere"
        for peer in rule.get("to") or ():
            block = (peer.get("ipBlock") or {}).get("cidr")
            if block and (network := ipaddress.ip_network(block, strict=False)).prefixlen < WIDEST[network.version]:
                yield block
