"""A table as its file has it: the columns a use case names under their standard names, and an endpoint's log known for
what it is.

It checks no row and draws none (`leastwise.rows.tables` does). Start reading at `raw_tables.py`.
"""
