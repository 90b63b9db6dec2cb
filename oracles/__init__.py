"""Installed peers as oracles: each row of the catalogue against the function of TRL or verl that it corresponds to."""
