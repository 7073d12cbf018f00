"""A small network in JAX, saved by Orbax; it ends in the same weights, bit for bit, however often it is stopped.

    python train.py --steps 200          # goes on where the last start stopped
    hpc-resume run job.yaml              # the same as a job, here; `submit` on a cluster

The last line on stdout is the SHA-256 of the final weights.
"""

from __future__ import annotations

import argparse
import hashlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import hpc_resume
from hpc_resume.integrations.orbax import PyTree


def loss(params, inputs, targets, key):
    hidden = jax.nn.relu(inputs @ params["in"])
    kept = jax.random.bernoulli(key, 0.9, hidden.shape)  # dropout: its key is part of the state
    return jnp.mean((hidden * kept @ params["out"] - targets) ** 2)


@jax.jit
def update(state, inputs, targets):
    key, now = jax.random.split(state["key"])
    slopes = jax.grad(loss)(state["params"], inputs, targets, now)
    moments = jax.tree.map(lambda old, new: 0.9 * old + new, state["moments"], slopes)
    params = jax.tree.map(lambda old, moment: old - 0.01 * moment, state["params"], moments)
    return {"params": params, "moments": moments, "key": key}


@hpc_resume.resumable
def train(run: hpc_resume.Run, steps: int, pause: float) -> str:
    first, second, key = jax.random.split(jax.random.PRNGKey(7), 3)
    params = {"in": jax.random.normal(first, (8, 16)), "out": jax.random.normal(second, (16, 1))}
    state = PyTree(run, {"params": params, "moments": jax.tree.map(jnp.zeros_like, params), "key": key})
    order = np.random.default_rng(7)
    run.register(order=order)
    data = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    targets = np.sqrt(np.square(data).sum(axis=1, keepdims=True))
    for step in run.steps(steps):
        ids = order.integers(len(data), size=32)
        state.tree = update(state.tree, data[ids], targets[ids])
        print(f"step {step}", flush=True)
        time.sleep(pause)
    weights = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state.tree["params"])]
    return hashlib.sha256(b"".join(weights)).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--pause", type=float, default=0.02, help="seconds per step, so that there is time to interrupt"
    )
    options = parser.parse_args()
    print(f"final state {train(options.steps, options.pause)}")
