"""The flags of the commands: those that several share, and those of commands that have many."""
