"""Reports that tell whether vectors can be trusted: texts in, figures with intervals out, advice in words."""
