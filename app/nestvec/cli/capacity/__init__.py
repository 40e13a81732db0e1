"""The verbs that measure what a machine can do, and plan with it: `bench`, `plan`."""
