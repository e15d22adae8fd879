"""What this machine gives to every part: files that appear whole, locks, ports, cores, the user's folder."""
