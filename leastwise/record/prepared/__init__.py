"""What a use case is prepared from and to, in MLflow: rows of experiments and data sets read, and its page.

It prepares nothing (see `leastwise.rows.preparing`) and changes no trace and no data set.
"""
