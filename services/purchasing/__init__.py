"""purchasing: getting what is short."""
