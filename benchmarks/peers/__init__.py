"""Other task queues, measured like this project. Nothing here imports Django: each peer has a separate environment,
because their Redis clients exclude each other (see `environments.py`)."""
