"""MLflow: runs, the model registry and the models it serves; nothing else imports mlflow."""
