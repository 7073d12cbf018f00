"""`python -m hpc_resume.run -- python train.py ARGUMENTS`: see startup."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from hpc_resume.run.startup import main

    words = sys.argv[1:]
    if sys.path[:1] and not sys.flags.safe_path:
        del sys.path[0]  # -m searched the working directory; the training has its own place
    main(words[1:] if words[:1] == ["--"] else words)
