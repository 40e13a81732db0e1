"""The Helm chart and the plain manifests: their variables are settings, their parts fit, their queries count.

`make chart-check` holds what needs helm and the schemas of Kubernetes.
"""
