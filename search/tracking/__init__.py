"""MLflow: runs, the registry, the served model."""

import os

from search.command_line.exits import name_home_and_user

name_home_and_user()  # MLflow asks for both when it is imported, in notebooks too
# Read by MLflow when it is imported: nothing leaves the machine, no pickle is ever loaded, and a model does not say
# which of its environment's variables hold keys.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING", "false")
