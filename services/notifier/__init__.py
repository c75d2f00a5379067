"""The service notifier: tells customers by mail what became of their order."""
