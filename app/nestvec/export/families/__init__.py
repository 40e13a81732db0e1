"""Model families: one file for each, and one for each builder that several families share."""
