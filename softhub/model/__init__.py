"""Run the frozen base; shared by training, inference and serving."""
