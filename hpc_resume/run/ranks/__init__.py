"""Many ranks of one training: a warning to one stops all at the same step, and a save has the parts of all."""
