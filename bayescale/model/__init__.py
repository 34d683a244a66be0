"""From a law and a run table to a log-density: coordinates, noise, discrepancy, PyMC."""
