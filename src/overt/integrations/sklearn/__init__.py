"""scikit-learn: a meta-estimator that records what it fits."""
