"""What this machine and this installation are, and what runs where: for `nestvec doctor` and for reports."""
