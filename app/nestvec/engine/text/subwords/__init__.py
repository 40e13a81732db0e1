"""Words that a vocabulary lacks, by the rows of their parts."""
