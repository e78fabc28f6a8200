"""A runtime that does not fall: threads, processes, leaks, interruptions, files that change."""
