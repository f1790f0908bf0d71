"""The training of a run: what it works on, its state, objectives, rounds, the loop."""
