"""What there is, and whose it is: stock, its queue, and the promises to those who wait."""
