"""Models as they leave: folders for diffusers, files of the guided step, their cards."""
