"""Stored texts looked up: indexes, their searches by meaning, words and tokens, long documents in parts.

It asks no model that answers, judges nothing and never looks up a gate row: what is indexed is data.train and
data.documents. Start reading at `index.py`.
"""

from leastwise.answering.retrieval.building import build_index, index_key, open_index
from leastwise.answering.retrieval.hits import Gold, Hit, gold_ranks, mean_reciprocal_rank, recall_at_k
from leastwise.answering.retrieval.index import Index
from leastwise.answering.retrieval.looking_up import Retrieving, looked_up, retrieval_ms, retriever_of

__all__ = [
    "Gold",
    "Hit",
    "Index",
    "Retrieving",
    "build_index",
    "gold_ranks",
    "index_key",
    "looked_up",
    "mean_reciprocal_rank",
    "open_index",
    "recall_at_k",
    "retrieval_ms",
    "retriever_of",
]
