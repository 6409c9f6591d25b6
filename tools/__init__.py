"""What is run by hand, and not part of the farm."""
