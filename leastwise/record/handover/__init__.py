"""What was made on one machine and is used on another: published in MLflow by its digest, fetched and checked there.

It trains nothing and judges nothing; where a machine keeps what it fetched is said in `leastwise.stores.made`. Start at
`handover.py`, then `publications.py`.
"""
