"""Settings of a run: what there is, how layers of it resolve, what each means for a result."""
