"""`python -m hpc_resume` is `hpc-resume`."""

import sys

from hpc_resume.cli import main

if __name__ == "__main__":
    sys.exit(main())
