"""Adapters to the frameworks people train with: each file knows one of them and our `Run`, and nothing imports them.

A new one is a file here, a line in ADAPTERS, and examples/<name>/train.py, which tests/contracts/test_frameworks.py
interrupts. It goes through Run's public API alone, so that what is beneath, as the agreement of ranks, is its own too.
"""

from typing import Final, NamedTuple


class Adapter(NamedTuple):
    """Where it is, and what has to be installed for it."""

    module: str
    needs: str


ADAPTERS: Final = {
    "jax": Adapter("hpc_resume.integrations.orbax", needs="orbax"),
    "keras": Adapter("hpc_resume.integrations.keras", needs="keras"),
    "lightning": Adapter("hpc_resume.integrations.lightning", needs="lightning"),
    "transformers": Adapter("hpc_resume.integrations.transformers", needs="transformers"),
}
