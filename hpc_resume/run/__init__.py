"""In the job: what runs inside the training process. Standard library and filelock only."""
