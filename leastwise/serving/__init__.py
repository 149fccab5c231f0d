"""The champion behind a URL: requests answered by whatever the alias names now, logged, counted, traced.

It judges nothing, moves no alias and trains nothing; what answers is built by `leastwise.answering`. Start reading at
`bundle.py` (what a winner takes with it) and `live_model.py` (how it answers).
"""
