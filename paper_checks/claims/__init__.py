"""The claims of the paper, one module per section; importing a module registers its claims."""
