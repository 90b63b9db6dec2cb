"""What the command line's commands do; each module is imported when one of its commands is called."""
