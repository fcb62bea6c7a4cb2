"""What operators run: doctor, health checks, access to the databases."""
