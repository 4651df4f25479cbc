"""The score table of rules that drop the learning rate, on a test bed with a known truth."""
