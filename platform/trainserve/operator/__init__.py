"""4. Who keeps asking: the controllers."""
