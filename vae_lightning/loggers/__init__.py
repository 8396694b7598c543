"""What is recorded of a run beyond its folder: pictures, options and results, by type of logger (`recording`)."""
