"""HTTP in front of the answering service: OpenAI's chat interface, MLflow's /invocations, health and counts.

It decides nothing about answers and keeps nothing. Start reading at `routes.py`, then `admission.py` (who and what is
let in) and `bodies.py` (the shapes of requests and answers).
"""
