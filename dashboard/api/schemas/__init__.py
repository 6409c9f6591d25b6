"""The documents of the API: what requests say and what answers tell."""
