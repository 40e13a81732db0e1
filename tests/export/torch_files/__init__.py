"""Files that torch itself wrote, and what they hold."""
