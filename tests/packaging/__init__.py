"""What is shipped, and what importing it costs."""
