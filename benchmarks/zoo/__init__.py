"""Models of the speed benchmark: networks with seeded weights and files of public wheels."""
