"""Use cases: one function, one transaction. No HTTP here."""
