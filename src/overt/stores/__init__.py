"""Where runs are delivered to: each store is one projection of the journal, behind the five verbs of ``protocols``."""
