"""Servers behind the proxies of deploy/proxies."""
