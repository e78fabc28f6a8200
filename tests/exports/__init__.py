"""Real networks, exported here by both torch exporters, come back as the modules they were."""
