"""Use cases: YAML files a user copies, and the builder of the embedded data. The product imports nothing here."""
