"""A small network in Keras that ends in the same weights, bit for bit, however often it is stopped.

    python train.py --steps 120          # goes on where the last start stopped
    hpc-resume run job.yaml              # the same as a job, here; `submit` on a cluster

The last line on stdout is the SHA-256 of the final weights.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time

os.environ.setdefault("KERAS_BACKEND", "torch")  # before the import: Keras asks then

import keras
import numpy as np

import hpc_resume
from hpc_resume.integrations.keras import HpcResume

BATCHES = 8  # in an epoch


class Said(keras.callbacks.Callback):
    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause = pause
        self.said = -1

    def on_train_batch_begin(self, batch, logs=None):
        step = int(self.model.optimizer.iterations.value)
        if step != self.said:  # Keras calls this for the batches that are left out, too
            print(f"step {step}", flush=True)
            time.sleep(self.pause)
        self.said = step


@hpc_resume.resumable
def train(run: hpc_resume.Run, steps: int, pause: float) -> str:
    keras.utils.set_random_seed(7)
    inputs = np.random.default_rng(0).normal(size=(BATCHES * 16, 8)).astype("float32")
    targets = np.sqrt(np.square(inputs).sum(axis=1, keepdims=True))
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.1), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile(optimizer=keras.optimizers.AdamW(1e-2), loss="mse")
    callbacks = [Said(pause), HpcResume(run)]
    history = model.fit(inputs, targets, batch_size=16, epochs=steps // BATCHES, callbacks=callbacks, verbose=0)
    print(f"losses {history.history['loss'][-2:]}")
    return hashlib.sha256(b"".join(np.asarray(one).tobytes() for one in model.get_weights())).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument(
        "--pause", type=float, default=0.02, help="seconds per step, so that there is time to interrupt"
    )
    options = parser.parse_args()
    print(f"final state {train(options.steps, options.pause)}")
