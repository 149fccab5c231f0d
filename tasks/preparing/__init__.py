"""From what people have to a use case that climbs: sources read, rows prepared, everything written and shown.

It climbs nothing and asks no model; what is done to rows is in `leastwise/rows/preparing`.
"""
