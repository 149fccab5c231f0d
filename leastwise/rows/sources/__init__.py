"""What somebody has, read by its shape: any usual table, a data set's folder, chats, evals, exports; one frame each.

It cleans and drops no row, splits nothing and writes nothing (see `leastwise.rows.preparing`). Start reading at
`reading.py`; a shape is a file.
"""
