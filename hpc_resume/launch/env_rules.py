"""What may not stand in a script: secrets, and variables whose value is not the person's to choose.

A rendered script is kept, shown and mailed: `scontrol show job`, `sacct`, a shared directory. So no secret is written
into one, wherever in job.yaml it stands.
"""

from __future__ import annotations

import re
from typing import Final

from hpc_resume.contract import ENV_PREFIX

_SUSPECT_WORDS: Final = r"(?:API_?KEY|ACCESS_KEY|PRIVATE_KEY|SECRET_KEY|TOKEN|SECRET|PASSPHRASE|CREDENTIALS?)"
_SECRET_NAME: Final = re.compile(rf"(?:.*_)?{_SUSPECT_WORDS}|.*(?:PASSWORD|PASSWD).*", re.IGNORECASE)

# NAME=text or --name=text inside `setup`, `command` or `slurm.export`. A value that the shell finds out by itself is
# none of ours: NAME=$(cat ~/.key), NAME="$OTHER", NAME=.
_ASSIGNMENT: Final = re.compile(r"(?<![\w-])(--)?([A-Za-z_][\w-]*)=(?!\"?[$`]|''|\"\"|[\s;&|)]|$)")

# The same as two words: --api-key text. Not an option that follows, and nothing that the shell finds out.
_OPTION: Final = re.compile(r"(?<![\w-])--([A-Za-z_][\w-]*)\s+(?![-<>|&;)]|['\"]?[$`]|''|\"\")\S")

# Language models have tokens of another kind: --eos_token=</s> is no secret.
_NO_SECRET_OPTION: Final = re.compile(r".*TOKEN", re.IGNORECASE)

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_READ_ONLY: Final = ("BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID")
_STEERING: Final = ("BASH_ENV", "BASHPID", "ENV", "IFS", "POSIXLY_CORRECT", "PS4", "PWD", "OLDPWD", "_")


def name_problem(name: str) -> str | None:
    """Why `name` cannot be a key of `env`, None when it can."""
    if name == "<<":
        return "merge keys (<<) are YAML 1.1, not 1.2: write the variables out"
    if not _NAME.fullmatch(name):
        return "is not a variable name: letters, digits and _, not a digit first"
    if is_secret(name):
        return f"a secret does not belong in a script. {_remedy(name)}"
    if name.startswith((ENV_PREFIX, "HR_")):
        return "is set by hpc_resume itself: the training would be told something that is not so"
    if name.startswith("SLURM_"):
        return "is set by Slurm: another value would send signals and requeues to the wrong job"
    if name in _READ_ONLY:
        return "is read-only in bash"
    if name in _STEERING or name.startswith("BASH_FUNC_"):
        return "changes how bash itself works, so the script could not be relied on"
    return None


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret by all appearances."""
    return _SECRET_NAME.fullmatch(name) is not None


def secret_in(text: str) -> str | None:
    """What to say about a secret written out in `text`, as NAME=value or --name value; None where there is none."""
    for match in _ASSIGNMENT.finditer(text):
        name = match[2].replace("-", "_")
        if is_secret(name) and not (match[1] and _NO_SECRET_OPTION.fullmatch(name)):
            variable = name.upper() if match[1] else name
            return f"writes out {match[1] or ''}{match[2]}: a secret does not belong in a script. {_remedy(variable)}"
    for match in _OPTION.finditer(text):
        name = match[1].replace("-", "_")
        if is_secret(name) and not _NO_SECRET_OPTION.fullmatch(name):
            return f"writes out --{match[1]}: a secret does not belong in a script. {_remedy(name.upper())}"
    return None


def _remedy(name: str) -> str:
    export = f"Export {name} in the shell before submitting: sbatch hands the environment on"
    if name.upper() == "WANDB_API_KEY":
        return f"{export}. Or run `wandb login` once, which keeps the key in ~/.netrc"
    if name.upper() in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        return f"{export}. Or run `hf auth login` once, which keeps it in your home directory"
    return f"{export}. Or read it in `setup` from a file that only you can read: export {name}=$(<~/.{name.lower()})"
