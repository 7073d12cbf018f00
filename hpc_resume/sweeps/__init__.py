"""W&B sweeps: a fleet of agents that hand their runs back before they go, and never take one that another one has.

Slurm requeues agents, W&B requeues runs. An agent here is a loop around the real `wandb agent --count 1`: loop.py
decides when it may take a run, client.py runs wandb's own program, hand.py knows which run is in hand.
"""
