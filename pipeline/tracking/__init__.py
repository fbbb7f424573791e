"""MLflow: runs, the model registry and the models it serves; nothing else imports mlflow."""

import os

# MLflow reports usage to its makers from the moment it is imported; whoever wants that sets the variable to false.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
