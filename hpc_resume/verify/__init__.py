"""verify-resume: the same training uninterrupted and interrupted, and where the two part."""
