"""A candidate at work, as in production: its prompt fitted, its retrieval, its guard, cascade and cache, over HTTP.

It never scores an answer and decides no threshold. Start reading at `answerer.py`, then `answerers.py`.
"""
