"""MLflow as a store: the only room that imports mlflow, used through ``MlflowClient`` with explicit run ids."""
