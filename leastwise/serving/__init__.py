"""The champion behind a URL: requests answered by whatever the alias names now, logged, counted, traced.

It judges nothing, moves no alias and trains nothing; what answers is built by `leastwise.answering`. Start reading at
`answering_service.py` (one request), then `following.py` (how a promotion reaches it) and `server.py` (processes).
"""
