"""What Leastwise made itself (adapters, bases, students, labels) under one name everywhere, and where a machine has it.

It trains nothing, speaks to no server and deletes nothing that was not published. Start at `naming.py`, then `kept.py`.
"""
