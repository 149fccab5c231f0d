"""The champion behind a URL: a winner with all its files, requests answered by whatever the alias names now, logged,
counted, traced.

It judges nothing and trains nothing; what answers is built by `leastwise.answering`, and what a winner takes with it is
packed by `leastwise.answering.bundle`. Start reading at `live_model.py` (how it answers), then `answering_service.py`
(one request), `following.py` (how a promotion reaches it) and `server.py` (processes).
"""
