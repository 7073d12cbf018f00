"""`submitit.AutoExecutor(cluster="hpc_resume")`: our script, sentinel, budgets and ledger for a submitit user.

submitit finds the two classes below by the entry points in pyproject.toml. Its pickles stay its own business, in the
user's own folder; what is ours is in `<folder>/runs`.
"""

from hpc_resume.integrations.submitit.environment import HpcResumeJobEnvironment
from hpc_resume.integrations.submitit.executor import HpcResumeExecutor
from hpc_resume.integrations.submitit.job import HpcResumeJob

__all__ = ["HpcResumeExecutor", "HpcResumeJob", "HpcResumeJobEnvironment"]
