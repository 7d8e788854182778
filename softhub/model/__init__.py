"""What runs through the frozen base; training, inference and serving share it."""
