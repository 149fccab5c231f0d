"""Endpoints that stay when whoever started them has ended: a version behind a URL on this machine, and what it carries.

It promotes nothing, judges nothing and moves no alias; what answers is `leastwise.serving`. Start reading at
`deploying.py` (the last act of self_host), then `entries.py` (what is written down of an endpoint), `starting.py` (how
one is started), `process.py` (what then runs) and `load.py` (how it is measured).
"""
