"""Arrays in, a :class:`~overt.evaluation.report.Report` out: nothing here records, draws, prints or warns.

Each module is imported where it is needed, by name: ``overt.evaluation.report`` imports no third-party
library, so the values can be read where scikit-learn is not installed.
"""
