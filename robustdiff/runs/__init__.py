"""The run folder: names of files, making, finding, reading."""
