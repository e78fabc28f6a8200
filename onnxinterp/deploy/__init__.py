"""Models for other runtimes: a module in, files out that have been run and compared."""
