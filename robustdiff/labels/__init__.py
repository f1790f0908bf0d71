"""What the images say about their labels: scores, evidence, trust."""
