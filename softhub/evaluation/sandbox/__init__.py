"""Running generated code with its tests, confined by the operating system."""
