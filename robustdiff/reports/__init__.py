"""What people read: audit, card, comparison, TensorBoard, figures."""
