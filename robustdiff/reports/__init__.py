"""What people read: pages about labels, runs and comparisons; cards, logs, figures."""
