"""MLflow as a store: the only room that imports mlflow, and it does so through ``MlflowClient`` with explicit run ids."""
