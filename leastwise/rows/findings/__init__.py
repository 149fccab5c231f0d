"""What is found in rows before anybody trusts them: lengths, language, personal data, near duplicates and their groups,
contradictions, shares of labels, and what words alone reach; of rows being prepared and of a use case's tables alike.

It drops no row, repairs none and decides nothing. Start reading at `in_tables.py`.
"""
