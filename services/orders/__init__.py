"""The service orders: what the customer asked for, and what the customer was told."""
