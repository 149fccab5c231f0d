"""A candidate in a Kubernetes cluster: applied, awaited, judged over HTTP, what passes is what callers are led to.

It judges nothing, moves no alias, and touches no object but those it made and the one Service that callers use. Start
reading at `place.py` (a candidate while it is judged), then `leading.py` (callers led to it, and back), `rollout.py`
(applied and awaited), `manifests.py` (what is applied), `kubernetes.py` (the API server) and `pod.py` (what pods
run).
"""
