"""A test bed with a known truth for rules that drop the learning rate."""
