"""The public API, loaded lazily: importing hpc_resume costs next to nothing and brings no third-party module."""
