"""What a person sees of runs: a live line, a table, the words for each state."""
