"""Other task queues, measured as this project is. Nothing here imports Django: each peer runs in an environment of its
own, because their Redis clients exclude each other (see `environments.py`)."""
