"""The referee for openai/parameter-golf: reads a submission, never runs it, and says what its code does."""

__version__ = "0.1.0"
