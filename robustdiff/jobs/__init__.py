"""What a person starts: one file for each command that does work."""
