"""The tree of modules: what hooks, wrappers and replacements of its modules see and do."""
